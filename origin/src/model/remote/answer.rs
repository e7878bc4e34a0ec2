//! From the body of an answer to its tokens: when it has ended, and how.
//!
//! | what comes | before a reason was told | behind one |
//! |---|---|---|
//! | text, thoughts | told | told; the wait begins anew |
//! | a reason, usage | kept | the later one counts; the wait begins anew |
//! | an end marker | broke off | the end |
//! | the body's clean end | broke off | the end |
//! | the connection breaks | broke off | the end; broke off where reasons prove nothing, see below |
//! | nothing, for the wait | goes on: the timeouts are the caller's | the end |
//! | an error, a line that can't be read, at the end half a line | failed | failed |
//!
//! A reason proves nothing from Gemini, which may give it in every chunk, and where text has come behind one: then a broken
//! connection is a failure, and the wait is longer.

use std::{
    collections::VecDeque,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    task::unconstrained,
    time::{Instant, Sleep},
};

use super::{
    Inner,
    connections::{Body, Failure},
    finish::Ending,
    parser::{Event, Fault, Parser},
    provider::Refusal,
};
use crate::{
    config::model::Protocol,
    model::{ModelError, Token},
    stream::{Finish, Usage},
};

/// How long something may still come behind the reason: usage comes up to two seconds later.
const WAIT: Duration = Duration::from_secs(2);
/// The same where the reason proves nothing, because it may stand in every chunk.
const LONG_WAIT: Duration = Duration::from_secs(10);
/// How long comments alone are signs of life: a gateway sends them whatever its model does.
const COMMENTS: Duration = Duration::from_secs(5 * 60);

/// An answer that has begun.
pub(super) struct Answer {
    model: Arc<Inner>,
    /// `None` once the answer has ended.
    body: Option<Body>,
    parser: Parser,
    progress: Progress,
    wait: Option<Pin<Box<Sleep>>>,
}

/// What was said so far.
struct Progress {
    tokens: VecDeque<Token>,
    /// Whether anything was told, and whether text was.
    some: bool,
    text: bool,
    reason: Option<Ending>,
    /// Text came behind a reason: only the body's end is sure then. Gemini gives its reason in any chunk.
    goes_on: bool,
    usage: Option<Usage>,
    failure: Option<Refusal>,
    /// An end marker came.
    ended: bool,
    /// When what is being read came.
    now: Instant,
    /// When something else than a comment came last.
    alive: Instant,
    /// When something came last that the wait begins anew with.
    last: Instant,
}

impl Answer {
    pub(super) fn new(model: Arc<Inner>, body: Body) -> Self {
        let (parser, now) = (Parser::new(model.protocol()), Instant::now());
        let progress = Progress {
            tokens: VecDeque::new(),
            some: false,
            text: false,
            reason: None,
            goes_on: model.protocol() == Protocol::Gemini,
            usage: None,
            failure: None,
            ended: false,
            now,
            alive: now,
            last: now,
        };
        Self { model, body: Some(body), parser, progress, wait: None }
    }

    /// The next token; `None` behind the end and behind a failure.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Token, ModelError>>> {
        /// Reads without a token, after which others have their turn.
        const MOST_READS: u32 = 64;
        /// Room for tokens that stays where there are none.
        const TOKENS_KEPT: usize = 64;
        let mut reads = 0;
        loop {
            if let Some(token) = self.progress.tokens.pop_front() {
                return Poll::Ready(Some(Ok(token)));
            }
            if let Some(refusal) = self.progress.failure.take() {
                self.body = None;
                return Poll::Ready(Some(Err(self.model.failed(refusal))));
            }
            // What a burst has taken is not kept for the rest of the answer.
            self.progress.tokens.shrink_to(TOKENS_KEPT);
            let Some(body) = &mut self.body else { return Poll::Ready(None) };
            if reads == MOST_READS {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            reads += 1;
            let read = match body.poll_chunk(cx) {
                Poll::Ready(read) => read,
                Poll::Pending => {
                    if self.waits(cx) {
                        return Poll::Pending;
                    }
                    self.end(None);
                    continue;
                }
            };
            match read {
                Ok(Some(bytes)) => self.read(&bytes),
                Ok(None) => self.end(None),
                Err(failure) => self.end(Some(&failure)),
            }
        }
    }

    fn read(&mut self, bytes: &[u8]) {
        self.progress.now = Instant::now();
        let (progress, model) = (&mut self.progress, &self.model);
        if let Err(fault) = self.parser.read(bytes, &mut |event| progress.event(model, event)) {
            self.unreadable(&fault);
        } else if self.progress.ended {
            self.end(None);
        }
    }

    /// Whether the answer goes on, as far as the clock tells.
    fn waits(&mut self, cx: &mut Context<'_>) -> bool {
        if self.progress.reason.is_none() {
            return true;
        }
        let wait = if self.progress.goes_on { LONG_WAIT } else { WAIT };
        let until = self.progress.last + wait;
        let sleep = self.wait.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        if sleep.deadline() != until {
            sleep.as_mut().reset(until);
        }
        // A flood of bytes uses the task's budget up, without which a timer never fires.
        pin!(unconstrained(sleep.as_mut())).poll(cx).is_pending()
    }

    fn unreadable(&mut self, fault: &Fault) {
        let error = match fault {
            Fault::Html => ModelError::Misconfigured(format!("{fault}; look at {}", self.model.settings().address)),
            Fault::TooLong | Fault::Unreadable(_) => ModelError::BadAnswer(fault.to_string()),
        };
        self.progress.failure.get_or_insert(Refusal::new(error));
    }

    /// The answer is over, because of this failure or in peace.
    fn end(&mut self, failure: Option<&Failure>) {
        let Some(body) = self.body.take() else { return };
        let (progress, model) = (&mut self.progress, &self.model);
        // What the body ends with may be without its line end.
        if !progress.ended
            && (failure.is_none() || progress.reason.is_some())
            && let Err(fault) = self.parser.end(&mut |event| progress.event(model, event))
        {
            self.unreadable(&fault);
        }
        if self.progress.failure.is_some() {
            return;
        }
        let broke = |what: &str| Some(Refusal::new(ModelError::BrokeOff(what.into())));
        self.progress.failure = match (self.progress.reason, failure) {
            (Some(Ending::Good(_) | Ending::Unknown), Some(failure)) if self.progress.goes_on => {
                Some(Refusal::broken(failure))
            }
            (Some(Ending::Good(finish)), _) => return self.finish(finish, body),
            (Some(Ending::Unknown), _) => return self.finish(Finish::Stop, body),
            (Some(Ending::Broken), _) => broke("its provider gave it up"),
            (None, Some(failure)) => Some(Refusal::broken(failure)),
            (None, None) if self.progress.some => broke("it ended without a reason"),
            (None, None) => Some(Refusal::new(ModelError::BadAnswer("it is empty; is the address right?".into()))),
        };
    }

    fn finish(&mut self, finish: Finish, body: Body) {
        if !self.progress.text && finish == Finish::Stop {
            tracing::warn!(model = self.model.name, "the answer is empty");
        }
        self.progress.tokens.push_back(Token::End { finish, usage: self.progress.usage });
        body.finish();
    }
}

impl Progress {
    fn event(&mut self, model: &Inner, event: Event<'_>) {
        self.some = true;
        match event {
            Event::Comment => {
                if self.now - self.alive < COMMENTS {
                    self.sign(Token::Connected);
                }
                return;
            }
            Event::Text(text) => {
                self.text = true;
                self.goes_on |= self.reason.is_some();
                self.tokens.push_back(Token::Text(text.to_owned()));
            }
            Event::Thought(text) if model.reasoning => self.tokens.push_back(Token::Reasoning(text.into_owned())),
            Event::Thought(_) => self.sign(Token::Alive),
            Event::Alive => {
                self.sign(Token::Alive);
                self.alive = self.now;
                return;
            }
            Event::Usage(usage) => {
                // Zeros behind a count are from servers that write the member each time.
                if usage != Usage::default() || self.usage.is_none() {
                    self.usage = Some(usage);
                }
            }
            Event::Finish(word) => self.reason = Some(model.ending(&word)),
            Event::Error(error) => {
                self.failure.get_or_insert_with(|| model.in_stream(error));
            }
            Event::End => self.ended = true,
        }
        (self.alive, self.last) = (self.now, self.now);
    }

    /// One sign of life is as good as many.
    fn sign(&mut self, sign: Token) {
        if self.tokens.back() != Some(&sign) {
            self.tokens.push_back(sign);
        }
    }
}
