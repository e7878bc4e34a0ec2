//! Several models, in order of preference: the next one is called where one gives no first token.

use std::{sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout, timeout_at},
};
use tracing::Instrument;

use super::{
    Model, ModelError, Request, Token, Tokens,
    health::{Call, Health},
};

/// Models in order of preference. Another model is called only before an answer's first token: after it the reader has a
/// beginning that another model would not continue.
pub struct Fallback {
    members: Vec<Member>,
    first_token_timeout: Duration,
}

struct Member {
    model: Arc<dyn Model>,
    health: Arc<Health>,
    /// One permit for each answer at once, where the model has such a limit.
    places: Option<Arc<Semaphore>>,
}

/// A place of a model that has a limit. Dropping it frees the place.
type Place = Option<OwnedSemaphorePermit>;

/// An answer that has begun.
pub struct Answer {
    model: Arc<dyn Model>,
    called: Instant,
    first: Option<Token>,
    tokens: Tokens,
    /// Dropped behind the tokens: the place is free when the model has been cancelled.
    _place: Place,
}

/// Why a model was passed over. One that cools down isn't told.
#[derive(Debug)]
pub enum Passed<'a> {
    /// It was called, and gave no first token.
    Failed(&'a ModelError),
    /// It has no place for one more answer, and another model is there.
    Full,
}

enum Outcome {
    Answers(Answer),
    Failed(ModelError),
    CoolsDown(ModelError),
    Full,
}

/// The failure that the reader is told: the last retryable one, else the last one.
#[derive(Default)]
struct Told(Option<ModelError>);

impl Fallback {
    /// These models. Each has `first_token_timeout` from its call to its first text, or to a sign of life, and from one sign
    /// of life to the next.
    pub fn new(models: Vec<Arc<dyn Model>>, first_token_timeout: Duration) -> Self {
        let alone = models.len() == 1;
        let members = models.into_iter().map(|model| Member {
            health: Health::new(model.name(), alone),
            places: model.concurrency().map(|most| Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)))),
            model,
        });
        Self { members: members.collect(), first_token_timeout }
    }

    /// How many generations they run at once in all; `None` where one of them has no such limit.
    pub fn concurrency(&self) -> Option<usize> {
        self.members.iter().map(|member| member.model.concurrency()).sum()
    }

    /// The names of the models, in order of preference.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.members.iter().map(|member| member.model.name())
    }

    /// Of the options those that one of the models that may answer can do nothing with.
    pub fn ignored(&self, request: &Request) -> Vec<&'static str> {
        let mut ignored: Vec<_> =
            self.asked(request).flat_map(|member| member.model.ignored(&request.options)).collect();
        ignored.sort_unstable();
        ignored.dedup();
        ignored
    }

    /// The models, and whether each of them cools down.
    pub fn cooling_down(&self) -> impl Iterator<Item = (&str, bool)> {
        self.members.iter().map(|member| (member.model.name(), member.health.cools_down()))
    }

    /// The answer of the first model that gives one: some text, or a good end without any. Calls `passed` for each model that
    /// is passed over. After any failure the next model is called: a prompt that one refuses, or that is too long for it, may
    /// suit another. No conversation is cut to fit. Dropping the future cancels the model that was called last.
    ///
    /// A model that cools down is called only if all do. A full one is passed over; the last that can be called is waited for.
    ///
    /// # Errors
    /// All models failed: the last retryable failure, else the last one. Of a model that cools down it is the failure that
    /// is the reason.
    pub async fn begin(
        &self,
        request: &Request,
        mut passed: impl FnMut(&str, Passed<'_>),
    ) -> Result<Answer, ModelError> {
        let mut told = Told::default();
        let mut uncalled: Vec<&Member> = self.asked(request).collect();
        // Once by health, then those that were left out, where nothing better has answered.
        for forced in [false, true] {
            if forced {
                let all = self.asked(request).all(|member| member.health.cools_down());
                uncalled.retain(|member| all || !member.health.cools_down());
            }
            let members = std::mem::take(&mut uncalled);
            for (index, member) in members.iter().enumerate() {
                let another = members[index + 1..].iter().any(|member| forced || member.health.usable());
                match self.ask(member, request, another, forced).await {
                    Outcome::Answers(answer) => return Ok(answer),
                    Outcome::Failed(error) => {
                        passed(member.model.name(), Passed::Failed(&error));
                        told.add(error);
                    }
                    Outcome::CoolsDown(error) => {
                        told.add(error);
                        uncalled.push(member);
                    }
                    Outcome::Full => {
                        passed(member.model.name(), Passed::Full);
                        told.add(ModelError::Overloaded(None));
                        uncalled.push(member);
                    }
                }
            }
        }
        Err(told.0.unwrap_or(ModelError::Overloaded(None)))
    }

    /// The models that may answer.
    fn asked(&self, request: &Request) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| request.model.as_deref().is_none_or(|name| name == member.model.name()))
    }

    /// Asks one model. With `another` behind it this one isn't waited for where it is full, nor for long where it was cooling
    /// down.
    async fn ask(&self, member: &Member, request: &Request, another: bool, forced: bool) -> Outcome {
        let longest = self.first_token_timeout;
        if let Some(error) = member.health.reason().filter(|_| !forced) {
            return Outcome::CoolsDown(error);
        }
        let place = match &member.places {
            None => None,
            Some(places) => match places.clone().try_acquire_owned() {
                Ok(place) => Some(place),
                // Who names a full model doesn't wait in a slot that other models could use.
                Err(_) if another || request.model.is_some() => return Outcome::Full,
                Err(_) => match timeout(longest, places.clone().acquire_owned()).await {
                    Ok(Ok(place)) => Some(place),
                    _ => return Outcome::Failed(ModelError::Overloaded(None)),
                },
            },
        };
        let mut call = match member.health.call(forced) {
            Ok(call) => call,
            Err(error) => return Outcome::CoolsDown(error),
        };
        let mut tokens = member.model.generate(&request.conversation, &request.options);
        let short = another && call.in_doubt();
        match first(&mut tokens, &mut call, longest, short).await {
            Ok(first) => {
                call.answered();
                let (model, called) = (member.model.clone(), call.called());
                Outcome::Answers(Answer { model, called, first: Some(first), tokens, _place: place })
            }
            Err(error) => {
                // A model that has a limit answers so where its places are taken by others than us.
                if place.is_none() || error != ModelError::Overloaded(None) {
                    call.failed(&error);
                }
                if let Some(until) = call.may_go_on().filter(|_| error == ModelError::FirstTokenTimeout) {
                    let until = until.min(call.called() + longest);
                    tokio::spawn(go_on(tokens, call, place, until).in_current_span());
                }
                Outcome::Failed(error)
            }
        }
    }
}

impl Told {
    fn add(&mut self, error: ModelError) {
        if error.retryable() || !self.0.as_ref().is_some_and(ModelError::retryable) {
            self.0 = Some(error);
        }
    }
}

impl Answer {
    /// The name of the model that gives it.
    pub fn model(&self) -> &str {
        self.model.name()
    }

    /// When that model was called.
    pub fn called(&self) -> Instant {
        self.called
    }

    /// Waits for an item, and returns all that are ready, at most so many. Nothing follows an end or a failure.
    pub async fn ready(&mut self, most: usize) -> Vec<Result<Token, ModelError>> {
        let mut ready = vec![self.next().await];
        while ready.len() < most
            && let Some(Ok(Token::Text(_) | Token::Reasoning(_) | Token::Alive | Token::Connected)) = ready.last()
            && let Some(item) = self.next().now_or_never()
        {
            ready.push(item);
        }
        ready
    }

    /// The next text, never an empty one, a sign of life, or the end.
    ///
    /// # Errors
    /// The model failed, or its answer has no end.
    pub async fn next(&mut self) -> Result<Token, ModelError> {
        match self.first.take() {
            Some(first) => Ok(first),
            None => next(&mut self.tokens).await,
        }
    }
}

/// Waits for the first text, or the end: at most `longest` from one sign of life to the next, whether it is the model's or the
/// connection's. A `short` call waits only for as long as the model is usually silent, unless it gives a sign of life.
async fn first(tokens: &mut Tokens, call: &mut Call, longest: Duration, mut short: bool) -> Result<Token, ModelError> {
    let (mut last, mut doubted) = (call.heard(), false);
    loop {
        let (doubt, end) = (call.heard() + call.patience(longest), last + longest);
        match timeout_at(if doubted { end } else { doubt.min(end) }, next(tokens)).await {
            Ok(Ok(Token::Alive)) => {
                call.alive();
                (last, doubted, short) = (call.heard(), false, false);
            }
            Ok(Ok(Token::Connected)) => last = Instant::now(),
            Ok(item) => return item,
            Err(_) => {
                if !doubted {
                    call.silent();
                    doubted = true;
                }
                if short || Instant::now() >= end {
                    return Err(ModelError::FirstTokenTimeout);
                }
            }
        }
    }
}

/// Listens to a probe that was silent for too long, and whose start has gone on to another model, for one sign of life. So a
/// model is found to be well that always takes longer than a probe waits.
async fn go_on(mut tokens: Tokens, mut call: Call, place: Place, until: Instant) {
    let heard = async {
        loop {
            match next(&mut tokens).await {
                Ok(Token::Connected) => {}
                heard => return heard,
            }
        }
    };
    match timeout_at(until, heard).await {
        Ok(Ok(Token::Alive)) => call.alive(),
        Ok(Ok(_)) => call.answered(),
        Ok(Err(error)) => call.failed(&error),
        Err(_) => {}
    }
    // The model is cancelled before the next probe.
    drop(tokens);
    drop((call, place));
}

/// The next item. An empty text is a sign of life.
async fn next(tokens: &mut Tokens) -> Result<Token, ModelError> {
    match tokens.next().await {
        Some(Ok(Token::Text(text) | Token::Reasoning(text))) if text.is_empty() => Ok(Token::Alive),
        Some(item) => item,
        None => Err(ModelError::BrokeOff("its answer stopped without an end".into())),
    }
}

#[cfg(test)]
mod tests;
