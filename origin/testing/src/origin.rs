//! An origin in this process, on a port of its own, and requests to it.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use headwater_origin::{app, config::Config, http::auth::Secrets};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
};

use crate::Scripted;

/// The secret that origins are started with.
pub const SECRET: &str = "a secret of the tests";

/// A running origin; it stops when it is dropped.
pub struct Origin {
    /// Where it listens.
    pub address: SocketAddr,
    figures: SocketAddr,
    client: reqwest::Client,
    stop: Option<oneshot::Sender<()>>,
    server: JoinHandle<()>,
}

/// An origin with a scripted model and these flags.
pub async fn spawn_origin(flags: &[&str]) -> Origin {
    spawn_origin_at(Ipv4Addr::LOCALHOST, flags).await
}

/// One that listens on an address of this machine.
pub async fn spawn_origin_at(address: Ipv4Addr, flags: &[&str]) -> Origin {
    let flags = ["origin"].iter().chain(flags).map(Into::into);
    let config = Config::parse_from_env(flags).expect("the flags parse");
    let (for_figures, figures) = listen(address).await;
    let (listener, address) = listen(address).await;
    let journal = app::journal(&config).await.expect("the journal is there");
    let (stop, stopped) = oneshot::channel::<()>();
    let secrets = Secrets::new([SECRET.to_owned()]).expect("the secret is long enough");
    let server = tokio::spawn(async move {
        let shutdown = async { drop(stopped.await) };
        let models: app::Models = vec![Arc::new(Scripted)];
        app::serve(listener, Some(for_figures), config, secrets, models, journal, shutdown)
            .await
            .expect("the journal runs");
    });
    Origin { figures, stop: Some(stop), server, ..Origin::at(address) }
}

async fn listen(address: Ipv4Addr) -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((address, 0)).await.expect("there is a free port");
    let address = listener.local_addr().expect("it has an address");
    (listener, address)
}

impl Origin {
    /// One that runs elsewhere.
    pub fn at(address: SocketAddr) -> Self {
        // No connection is kept: how many there are must not depend on how fast one is given back.
        let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().expect("a client");
        Self { address, figures: address, client, stop: None, server: tokio::spawn(async {}) }
    }

    /// A request with the secret and without an `Accept`.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("http://{}{path}", self.address)).bearer_auth(SECRET)
    }

    /// A framed start of this script, not yet sent.
    pub fn start(&self, script: &Value) -> RequestBuilder {
        self.bare(script).header("accept", "text/event-stream")
    }

    /// A bare start of this script, not yet sent.
    pub fn bare(&self, script: &Value) -> RequestBuilder {
        self.request(Method::POST, "/prompts/simple").json(&json!({ "topic": script.to_string() }))
    }

    /// A chat completion of this script, not yet sent. The members of `more` go beside the messages.
    pub fn completion(&self, script: &Value, more: &Value) -> RequestBuilder {
        let mut body = json!({ "model": "scripted", "messages": [{ "role": "user", "content": script.to_string() }] });
        let members = body.as_object_mut().zip(more.as_object()).expect("objects");
        members.0.extend(members.1.clone());
        self.request(Method::POST, "/v1/chat/completions").json(&body)
    }

    /// Follows a stream from the cursor.
    pub async fn follow(&self, cursor: &str) -> Response {
        let id = cursor.split('.').next().unwrap_or_default();
        let request = self.request(Method::GET, &format!("/streams/{id}")).header("last-event-id", cursor);
        request.send().await.expect("the origin answers")
    }

    /// Stops a stream.
    pub async fn stop(&self, id: &str) -> StatusCode {
        let request = self.request(Method::DELETE, &format!("/streams/{id}"));
        request.send().await.expect("the origin answers").status()
    }

    /// What `/healthz` counts under this name.
    pub async fn count(&self, name: &str) -> u64 {
        let health: Value =
            self.request(Method::GET, "/healthz").send().await.expect("it answers").json().await.expect("JSON");
        health["streams"][name].as_u64().expect("a count")
    }

    /// Waits until `/healthz` counts so many under this name.
    pub async fn until(&self, name: &str, count: u64) {
        until(&format!("{count} {name}"), async || self.count(name).await == count).await;
    }

    /// The figures.
    pub async fn figures(&self) -> Response {
        let request = self.client.get(format!("http://{}/metrics", self.figures));
        request.send().await.expect("the figures answer")
    }

    /// A finished stream's bytes, from its start.
    pub async fn follow_bytes(&self, id: &str) -> Vec<u8> {
        self.follow(id).await.bytes().await.expect("the stream is whole").to_vec()
    }

    /// Sends these bytes, and reads until the origin closes.
    pub async fn raw(&self, bytes: &[u8]) -> String {
        let mut socket = TcpStream::connect(self.address).await.expect("the origin accepts");
        socket.write_all(bytes).await.expect("the origin reads");
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).await.expect("the origin answers and closes");
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// SIGTERM.
    pub fn terminate(&mut self) {
        drop(self.stop.take());
    }

    /// Waits until the server has returned.
    pub async fn ended(self) {
        self.server.await.expect("the server didn't panic");
    }
}

/// Waits until it is so.
pub async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let reached = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), reached).await.unwrap_or_else(|_| panic!("never {what}"));
}

/// Sends a request that is to be answered by a stream.
pub async fn open(request: RequestBuilder) -> Response {
    let response = request.send().await.expect("the origin answers");
    assert_eq!(response.status(), 200, "{:?}", response.text().await);
    response
}

/// A framed start of this script, as it goes over the wire.
pub fn start_bytes(script: &Value) -> Vec<u8> {
    let body = json!({ "topic": script.to_string() }).to_string();
    let head = format!(
        "POST /prompts/simple HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {SECRET}\r\naccept: text/event-stream\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    (head + &body).into_bytes()
}
