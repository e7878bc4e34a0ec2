//! A model's health: one that fails while others are there is left alone for a while, its cool-down, and then probed by one
//! start at a time.
//!
//! # States
//! Columns: *well*; *cooling*, until its time has passed; *due*, it has passed; *probed*, a probe is on its way.
//!
//! | event | well | cooling | due | probed |
//! |---|---|---|---|---|
//! | a start | calls it | passes it over | probes it: probed | passes it over |
//! | a call fails | cooling | - | - | the probe: cooling, twice as long |
//! | a call is silent for longer than is usual | cooling | - | - | the probe: cooling, twice as long |
//! | text, or a good end | - | well, see below | well, see below | the probe: well |
//! | a sign of life | - | after silence: well | after silence: well | after silence: well |
//! | the probe is dropped | | | | due |
//! | a call fails, and the provider names a wait | cooling, until then | the later time | the later time | the later time |
//!
//! A failure, or a silence, counts only if its call is of the present *era*: an era ends where a cool-down begins and where an
//! answer ends one. So of many calls that fail together one counts, and calls from before an outage don't begin another after it.
//!
//! An answer proves less the older its call is. One from before the cool-down ends the cool-down only if that came of silence,
//! and only if the call itself was silent for so long: then the model is slow and not away. A rate limit outlasts it.
//!
//! A probe that was silent goes on without its start, and keeps its place until it is dropped, at the end of the new cool-down.
//!
//! Where every model cools down they are called in spite of it (*forced*): such a call's answer counts, its failure doesn't.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::ModelError;

/// The first cool-down: a restart or one lost connection is over by then.
const FIRST_COOL_DOWN: Duration = Duration::from_secs(1);
/// The longest: a model that is back is used again within a minute, and one that stays away costs a start a minute.
const LONGEST_COOL_DOWN: Duration = Duration::from_secs(60);
/// The longest wait of a provider that is kept: one that names more may not mean it.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// How long a model may be silent at the least, and as long as it has answered nothing yet. Most give their first token within
/// it, and a reader waits that long without leaving.
const LEAST_PATIENCE: Duration = Duration::from_secs(1);
/// How much longer than usual a silence has to be to be none of the usual ones.
const UNUSUAL: u32 = 3;
/// The part of its distance by which the longest usual silence comes down towards a shorter one, at each answer. One slow
/// answer is forgotten after about a hundred.
const FORGETTING: u32 = 32;

/// A model's health. Shared by its calls.
pub(super) struct Health {
    name: String,
    /// There is no other model: this one is called, whatever its state.
    alone: bool,
    state: Mutex<State>,
}

struct State {
    /// `None`: well.
    cooling: Option<Cooling>,
    /// The next cool-down's length.
    next: Duration,
    era: u64,
    /// The longest silence before a first token, as far as it is remembered.
    usual: Option<Duration>,
}

struct Cooling {
    since: Instant,
    until: Instant,
    error: ModelError,
    /// A probe is on its way.
    probed: bool,
}

/// A call of the model, up to its first token. Dropping it without a verdict leaves the model as it was.
pub(super) struct Call {
    health: Arc<Health>,
    kind: Kind,
    era: u64,
    called: Instant,
    /// The last sign of life, else the call.
    heard: Instant,
    /// Its longest silence that has ended.
    silence: Duration,
    /// It was silent for too long.
    doubted: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Of a model that is well.
    Plain,
    /// Of a model that is due.
    Probe,
    /// In spite of a cool-down.
    Forced,
}

impl Health {
    /// The health of the model `name`, which is well. One that is `alone` stays so.
    pub(super) fn new(name: &str, alone: bool) -> Arc<Self> {
        let state = State { cooling: None, next: FIRST_COOL_DOWN, era: 0, usual: None };
        Arc::new(Self { name: name.to_owned(), alone, state: Mutex::new(state) })
    }

    /// Begins a call.
    ///
    /// # Errors
    /// The model cools down, and the call isn't forced. The failure that is the reason, with what is left of its wait.
    pub(super) fn call(self: &Arc<Self>, forced: bool) -> Result<Call, ModelError> {
        let (mut state, now) = (self.state.lock(), Instant::now());
        let kind = match &mut state.cooling {
            None => Kind::Plain,
            Some(cooling) if cooling.is_due(now) => {
                cooling.probed = true;
                Kind::Probe
            }
            Some(_) if forced => Kind::Forced,
            Some(cooling) => return Err(cooling.left(now)),
        };
        let (health, era) = (self.clone(), state.era);
        Ok(Call { health, kind, era, called: now, heard: now, silence: Duration::ZERO, doubted: false })
    }

    /// Why a start wouldn't call it now: the failure that it cools down for, with what is left of its wait.
    pub(super) fn reason(&self) -> Option<ModelError> {
        let now = Instant::now();
        self.state.lock().cooling.as_ref().filter(|cooling| !cooling.is_due(now)).map(|cooling| cooling.left(now))
    }

    /// Whether a start would call it now.
    pub(super) fn usable(&self) -> bool {
        self.reason().is_none()
    }

    /// Whether it cools down, or has and isn't proved well since.
    pub(super) fn cools_down(&self) -> bool {
        self.state.lock().cooling.is_some()
    }

    fn cool_down(&self, state: &mut State, error: &ModelError, probed: bool) {
        if self.alone {
            return;
        }
        let now = Instant::now();
        let length = state.next.max(wait(error).unwrap_or_default());
        state.next = (state.next * 2).min(LONGEST_COOL_DOWN);
        state.era += 1;
        state.cooling = Some(Cooling { since: now, until: now + length, error: error.clone(), probed });
        self.log_cool_down(error, length);
    }

    fn log_cool_down(&self, error: &ModelError, length: Duration) {
        tracing::warn!(model = self.name, seconds = length.as_secs_f64(), %error, "the model isn't asked for a while");
    }

    fn recover(&self, state: &mut State) {
        if state.cooling.take().is_some() {
            tracing::info!(model = self.name, "the model answers again");
        }
    }
}

impl Cooling {
    fn is_due(&self, now: Instant) -> bool {
        now >= self.until && !self.probed
    }

    /// The failure, with what is left of the wait that the provider named. At least a moment: a wait that is over is not
    /// known to be well.
    fn left(&self, now: Instant) -> ModelError {
        let left = |wait: Duration| (self.since + wait.min(LONGEST_WAIT)).duration_since(now).max(FIRST_COOL_DOWN);
        match &self.error {
            ModelError::RateLimited(wait) => ModelError::RateLimited(wait.map(left)),
            ModelError::Overloaded(wait) => ModelError::Overloaded(wait.map(left)),
            error => error.clone(),
        }
    }
}

impl Call {
    /// When the model was called.
    pub(super) fn called(&self) -> Instant {
        self.called
    }

    /// When it last gave a sign of life; before the first one, when it was called.
    pub(super) fn heard(&self) -> Instant {
        self.heard
    }

    /// Whether the model was cooling down when it was called.
    pub(super) fn in_doubt(&self) -> bool {
        self.kind != Kind::Plain
    }

    /// How long the model may be silent before it is doubted, at most `longest`.
    pub(super) fn patience(&self, longest: Duration) -> Duration {
        let usual = self.health.state.lock().usual.unwrap_or_default();
        usual.saturating_mul(UNUSUAL).max(LEAST_PATIENCE).min(longest)
    }

    /// It is silent for longer than its patience. The call may go on.
    pub(super) fn silent(&mut self) {
        self.doubted = true;
        let mut state = self.health.state.lock();
        if self.era == state.era && self.kind != Kind::Forced {
            // A probe that goes on keeps its place.
            let probed = self.kind == Kind::Probe && state.cooling.is_some();
            self.health.cool_down(&mut state, &ModelError::FirstTokenTimeout, probed);
            if probed {
                self.era = state.era;
            }
        }
    }

    /// Until when a probe that was silent may go on for itself: until the next one.
    pub(super) fn may_go_on(&self) -> Option<Instant> {
        let state = self.health.state.lock();
        let mine = self.kind == Kind::Probe && self.doubted && self.era == state.era;
        state.cooling.as_ref().filter(|_| mine).map(|cooling| cooling.until)
    }

    /// It gave a sign of life.
    pub(super) fn alive(&mut self) {
        let now = Instant::now();
        let silence = now - self.heard;
        (self.heard, self.silence) = (now, self.silence.max(silence));
        let mut state = self.health.state.lock();
        state.usual = Some(state.usual.map_or(silence, |usual| usual.max(silence)));
        // The next cool-down stays as long as it is: there is no answer yet.
        if self.proves_only_slow(&state) {
            self.health.recover(&mut state);
        }
    }

    /// It gave its first text, or a good end.
    pub(super) fn answered(&mut self) {
        let silence = self.silence.max(self.heard.elapsed());
        let mut state = self.health.state.lock();
        let usual =
            state.usual.map_or(silence, |usual| silence.max(usual - usual.saturating_sub(silence) / FORGETTING));
        state.usual = Some(usual);
        let well = state.cooling.is_none();
        if well || self.era == state.era || self.proves_only_slow(&state) {
            state.next = FIRST_COOL_DOWN;
        }
        if !well && (self.era == state.era || self.proves_only_slow(&state)) {
            self.health.recover(&mut state);
            state.era += 1;
        }
    }

    /// It failed before its first token. A failure that is the prompt's says nothing of the model.
    pub(super) fn failed(&mut self, error: &ModelError) {
        if matches!(
            error,
            ModelError::Refused(_) | ModelError::BadRequest(..) | ModelError::TooLong(_) | ModelError::Unsupported(..)
        ) {
            return;
        }
        let mut state = self.health.state.lock();
        // One whose silence has counted doesn't count again.
        if self.era == state.era && self.kind != Kind::Forced && !self.doubted {
            self.health.cool_down(&mut state, error, false);
            return;
        }
        let Some(wait) = wait(error).filter(|_| !self.health.alone) else { return };
        let now = Instant::now();
        match &mut state.cooling {
            None => self.health.cool_down(&mut state, error, false),
            // Not for a moment: calls that fail together name the same wait.
            Some(cooling) if cooling.until + FIRST_COOL_DOWN < now + wait => {
                *cooling = Cooling { since: now, until: now + wait, error: error.clone(), probed: cooling.probed };
                self.health.log_cool_down(error, wait);
            }
            Some(_) => {}
        }
    }

    /// Whether a sign of life from it ends the cool-down: that came of silence, and this call was silent for as long.
    fn proves_only_slow(&self, state: &State) -> bool {
        let silence = state.cooling.as_ref().is_some_and(|cooling| cooling.error == ModelError::FirstTokenTimeout);
        silence && (self.doubted || self.in_doubt())
    }
}

/// Frees the probe's place.
impl Drop for Call {
    fn drop(&mut self) {
        let mut state = self.health.state.lock();
        if self.kind == Kind::Probe
            && self.era == state.era
            && let Some(cooling) = &mut state.cooling
        {
            cooling.probed = false;
        }
    }
}

/// The wait that the provider has named.
fn wait(error: &ModelError) -> Option<Duration> {
    match error {
        ModelError::RateLimited(wait) | ModelError::Overloaded(wait) => wait.map(|wait| wait.min(LONGEST_WAIT)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
