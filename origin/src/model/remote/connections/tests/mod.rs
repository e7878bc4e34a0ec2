//! The client against real sockets.

mod connecting;
mod http1;
mod http2;
mod raw;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Uri};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ClientConfig, RootCertStore, ServerConfig,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    },
};

use super::{Connections, Failure, Response};

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(5);

/// How often something happened.
#[derive(Clone, Default)]
struct Count(Arc<AtomicUsize>);

impl Count {
    fn add(&self) -> usize {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// A server's side of TLS that chooses among `protocols`, and a client's that trusts it.
fn tls(protocols: &[&str]) -> (TlsAcceptor, ClientConfig) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = || Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let server = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    let mut server = server.with_no_client_auth().with_single_cert(vec![certificate.clone()], key).unwrap();
    server.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let client = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    (TlsAcceptor::from(Arc::new(server)), client.with_root_certificates(roots).with_no_client_auth())
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A client of the server at `http://`.
fn plain(address: SocketAddr) -> (Connections, Uri) {
    let base = format!("http://{address}/v1").parse().unwrap();
    (Connections::new(&base).unwrap(), format!("{}chat", base.as_str()).parse().unwrap())
}

/// A client of the server at `https://`.
fn secure(address: SocketAddr, tls: ClientConfig) -> (Connections, Uri) {
    client(&format!("https://localhost:{}/v1/chat", address.port()), tls)
}

fn client(uri: &str, tls: ClientConfig) -> (Connections, Uri) {
    let uri: Uri = uri.parse().unwrap();
    (Connections::with(uri.clone(), Some(tls), None).unwrap(), uri)
}

async fn send(connections: &Connections, uri: &Uri) -> Result<Response, Failure> {
    let request = Request::post(uri).header("authorization", "Bearer a").body(Bytes::from_static(b"question")).unwrap();
    timeout(LONG, connections.send(request)).await.expect("it is answered or fails")
}

/// The whole body.
async fn read(mut response: Response) -> Result<String, Failure> {
    assert_eq!(response.head.status, 200);
    let mut text = Vec::new();
    while let Some(bytes) = timeout(LONG, response.body.chunk()).await.expect("it goes on")? {
        text.extend_from_slice(&bytes);
    }
    Ok(String::from_utf8(text).unwrap())
}

/// Reads one HTTP/1.1 request; `None` where the connection was closed.
async fn request(socket: &mut (impl AsyncReadExt + Unpin)) -> Option<String> {
    let mut read = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&read).into_owned();
        if text.ends_with("\r\n\r\nquestion") {
            return Some(text);
        }
        let mut buffer = [0; 1024];
        match socket.read(&mut buffer).await {
            Ok(length @ 1..) => read.extend_from_slice(&buffer[..length]),
            _ => return None,
        }
    }
}

async fn write(socket: &mut (impl AsyncWriteExt + Unpin), text: &str) {
    socket.write_all(text.as_bytes()).await.unwrap();
    socket.flush().await.unwrap();
}

/// An HTTP/1.1 answer with a body.
fn answer(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// Closes a connection with a reset, whatever was read.
fn reset(socket: TcpStream) {
    socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
    drop(socket);
}
