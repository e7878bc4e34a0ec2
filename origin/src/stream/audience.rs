//! Who reads a stream, and how its generation learns that nobody does or that its end was asked for.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::timeout};

use super::{Framing, Log};

/// Who reads a stream, and whether its end was asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Audience {
    /// Readers now.
    readers: usize,
    /// Whether a framed reader has ever attached: only such a one can come back, so only then is there a linger.
    framed: bool,
    /// All readers so far.
    pub(crate) attached: u64,
    /// How many of them followed the stream instead of starting it.
    pub(crate) resumed: u64,
    /// The end that was asked for.
    asked: Option<EarlyEnd>,
}

/// Why a generation ends before its answer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EarlyEnd {
    /// A reader stopped it.
    Stopped,
    /// Nobody reads it any more.
    Abandoned,
    /// It has taken as long as an answer may.
    OutOfTime,
    /// The origin is shutting down.
    Interrupted,
}

/// A reader's part in the audience: from here to drop.
pub(crate) struct Presence(Arc<Log>);

/// Asks for the stream's end; the first to ask has its way.
pub(crate) fn ask(log: &Log, end: EarlyEnd) {
    log.audience().send_modify(|audience| {
        audience.asked.get_or_insert(end);
    });
}

/// Resolves when the end was asked for, or when nobody has read for the linger.
pub(crate) async fn early_end(log: Arc<Log>, linger: Duration) -> EarlyEnd {
    // The log, and with it the sender, lives as long as this future: `wait_for` can't fail.
    let mut asking = log.audience().subscribe();
    tokio::select! {
        asked = asking.wait_for(|audience| audience.asked.is_some()) => {
            asked.ok().and_then(|audience| audience.asked).unwrap_or(EarlyEnd::Interrupted)
        }
        () = abandoned(log.audience().subscribe(), linger) => EarlyEnd::Abandoned,
    }
}

async fn abandoned(mut audience: watch::Receiver<Audience>, linger: Duration) {
    loop {
        let Ok(framed) = audience.wait_for(|audience| audience.readers == 0).await.map(|audience| audience.framed)
        else {
            return;
        };
        let linger = if framed { linger } else { Duration::ZERO };
        if timeout(linger, audience.wait_for(|audience| audience.readers > 0)).await.is_err() {
            return;
        }
    }
}

impl Presence {
    pub(crate) fn new(log: &Arc<Log>, framing: Framing, resumed: bool) -> Self {
        log.audience().send_modify(|audience| {
            audience.readers += 1;
            audience.attached += 1;
            audience.framed |= framing == Framing::Framed;
            audience.resumed += u64::from(resumed);
        });
        Self(log.clone())
    }

    /// What is read.
    pub(crate) fn log(&self) -> &Arc<Log> {
        &self.0
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.audience().send_modify(|audience| audience.readers -= 1);
    }
}
