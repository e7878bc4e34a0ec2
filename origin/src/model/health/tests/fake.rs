//! A model whose answers can be changed on the way, and that counts its calls.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use futures::{StreamExt, stream};
use tokio::time::{Instant, sleep};

use crate::{
    model::{Model, ModelError, Token, Tokens},
    prompt::{Conversation, Options},
    stream::Finish,
};

/// What a model does when it is called.
#[derive(Clone)]
pub(super) enum Says {
    /// Its text, after so many milliseconds.
    Text(u64),
    /// It fails, after so many milliseconds.
    Fails(ModelError, u64),
    /// A sign of life, every so many milliseconds, so often; then its text.
    Thinks(u64, u64),
    /// A sign of the connection's life, in the same way; then its text.
    Comments(u64, u64),
    Nothing,
}

pub(super) struct Fake {
    name: &'static str,
    says: Mutex<Says>,
    /// When it was called.
    pub(super) calls: Mutex<Vec<Instant>>,
    open: Arc<AtomicUsize>,
}

/// Counts a call until it is dropped.
struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Fake {
    pub(super) fn new(name: &'static str, says: Says) -> Arc<Self> {
        Arc::new(Self { name, says: says.into(), calls: Mutex::default(), open: Arc::default() })
    }

    pub(super) fn now(&self, says: Says) {
        *self.says.lock().unwrap() = says;
    }

    pub(super) fn calls(&self) -> usize {
        self.calls.lock().unwrap().len()
    }

    pub(super) fn open(&self) -> usize {
        self.open.load(Relaxed)
    }
}

impl Model for Fake {
    fn name(&self) -> &str {
        self.name
    }

    fn generate(&self, _: &Conversation, _: &Options) -> Tokens {
        self.calls.lock().unwrap().push(Instant::now());
        self.open.fetch_add(1, Relaxed);
        let (open, says) = (Open(self.open.clone()), self.says.lock().unwrap().clone());
        let text = || Ok(Token::Text("a".into()));
        let sign = if let Says::Comments(..) = says { Token::Connected } else { Token::Alive };
        let (first, every, times) = match says {
            Says::Text(after) => (Some(text()), after, 0),
            Says::Fails(error, after) => (Some(Err(error)), after, 0),
            Says::Thinks(every, times) | Says::Comments(every, times) => (Some(text()), every, times),
            Says::Nothing => (None, 0, 0),
        };
        let signs = stream::iter((0..times).map(move |_| Some(Ok(sign.clone()))));
        let end = Ok(Token::End { finish: Finish::Stop, usage: None });
        let items = signs.chain(stream::iter([first, Some(end)])).enumerate().then(move |(index, item)| {
            let _open = &open;
            async move {
                match item {
                    Some(item) => {
                        let wait = if index as u64 <= times { every } else { 0 };
                        sleep(Duration::from_millis(wait)).await;
                        item
                    }
                    None => std::future::pending().await,
                }
            }
        });
        items.boxed()
    }
}
