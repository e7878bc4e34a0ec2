//! A reader of answers: what a client library does to the bytes is not measured.

use std::{io, net::SocketAddr, time::Instant};

use headwater_origin_testing::SECRET;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{Result, provider::Script};

/// Events that the provider and the origin both write before the tokens, and after them at least.
pub const BEFORE: usize = 1;
pub const AFTER: usize = 1;

/// Who is asked.
#[derive(Clone, Copy)]
pub enum From {
    /// The provider, over HTTP/1.1.
    Provider(SocketAddr),
    Origin(SocketAddr),
}

/// An answer, read as it comes.
pub struct Reader {
    socket: TcpStream,
    buffer: Vec<u8>,
    last: u8,
}

impl Reader {
    pub async fn ask(from: From, script: Script) -> io::Result<Self> {
        let prompt = script.prompt();
        let (address, body) = match from {
            From::Provider(address) => (address, json!({ "messages": [{ "role": "user", "content": prompt }] })),
            From::Origin(address) => (address, json!({ "topic": prompt })),
        };
        let body = body.to_string();
        let head = format!(
            "POST /prompts/simple HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {SECRET}\r\naccept: text/event-stream\r\n\
             content-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        let mut socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        socket.write_all((head + &body).as_bytes()).await?;
        Ok(Self { socket, buffer: vec![0; 16 * 1024], last: 0 })
    }

    /// Reads once: how many events ended in it; `None` at the end.
    pub async fn events(&mut self) -> io::Result<Option<usize>> {
        let read = self.socket.read(&mut self.buffer).await?;
        let mut events = 0;
        for &byte in &self.buffer[..read] {
            // An event ends in an empty line.
            events += usize::from(byte == b'\n' && self.last == b'\n');
            self.last = byte;
        }
        Ok((read > 0).then_some(events))
    }

    /// Reads the first token.
    pub async fn first_token(&mut self) -> Result<()> {
        let mut events = 0;
        while events <= BEFORE {
            events += self.events().await?.ok_or("no token came")?;
        }
        Ok(())
    }
}

/// When each token of an answer came.
pub async fn arrivals(from: From, script: Script) -> Result<Vec<Instant>> {
    let mut reader = Reader::ask(from, script).await?;
    let mut arrivals = Vec::with_capacity(BEFORE + script.tokens() + AFTER);
    while let Some(events) = reader.events().await? {
        arrivals.extend(std::iter::repeat_n(Instant::now(), events));
    }
    let tokens = arrivals.get(BEFORE..BEFORE + script.tokens());
    let tokens = tokens.filter(|tokens| BEFORE + tokens.len() + AFTER <= arrivals.len());
    Ok(tokens.ok_or_else(|| format!("{} events for {} tokens", arrivals.len(), script.tokens()))?.to_vec())
}
