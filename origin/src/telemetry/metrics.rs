//! Metrics for Prometheus, as OpenMetrics text.
//!
//! A metric has the name that OpenTelemetry gives it (conventions for generative AI, metrics of a client), with dots as
//! underscores, else a name that begins with `headwater_`.

use std::time::Duration;

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

/// The media type of the metrics, OpenMetrics 1.0 section "Overall Structure".
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The origin's metrics since its start.
pub struct Metrics {
    registry: Registry,
    started: Counter,
    refused: Family<Refused, Counter>,
    passed_over: Family<PassedOver, Counter>,
    cooling_down: Family<ByModel, Gauge>,
    journal_failures: Family<Operation, Counter>,
    ended: Family<Ended, Counter>,
    first_chunk: Family<ByModel, Histogram>,
    gap: Family<ByModel, Histogram>,
    duration: Family<ByModel, Histogram>,
    tokens: Family<ByType, Histogram>,
    attached: Family<Attached, Counter>,
    readers: Gauge,
    running: Gauge,
    queued: Gauge,
    journal: Gauge,
}

/// Why a reader attaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attachment {
    /// It started the stream, or repeated its start.
    Start,
    /// It goes on with a running stream.
    Resume,
    /// It reads a stream that has ended.
    Replay,
}

/// Tokens of one generation, as its model counts them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tokens {
    pub(crate) input: u64,
    pub(crate) output: u64,
}

/// The histograms of one model, looked up once a stream.
pub(crate) struct OfModel {
    first_chunk: Histogram,
    gap: Histogram,
}

/// One attached reader: counted until it is dropped.
pub(crate) struct Counted(Gauge);

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByModel {
    gen_ai_request_model: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByType {
    gen_ai_request_model: String,
    gen_ai_token_type: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Ended {
    gen_ai_request_model: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Refused {
    problem: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Operation {
    operation: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PassedOver {
    gen_ai_request_model: String,
    problem: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Attached {
    by: &'static str,
}

/// Seconds to a first chunk, the conventions' bounds and two more for the timeouts.
const FIRST_CHUNK: [f64; 18] =
    [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0, 120.0];
/// Seconds from one chunk to the next.
const GAP: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5];

impl Default for Metrics {
    fn default() -> Self {
        let mut figures = Self {
            registry: Registry::default(),
            started: Counter::default(),
            refused: Family::default(),
            passed_over: Family::default(),
            cooling_down: Family::default(),
            journal_failures: Family::default(),
            ended: Family::default(),
            first_chunk: Family::new_with_constructor(|| Histogram::new(FIRST_CHUNK)),
            gap: Family::new_with_constructor(|| Histogram::new(GAP)),
            // 10 ms to 82 s, 1 to 67 million tokens: the conventions' bounds.
            duration: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.01, 2.0, 14))),
            tokens: Family::new_with_constructor(|| Histogram::new(exponential_buckets(1.0, 4.0, 14))),
            attached: Family::default(),
            readers: Gauge::default(),
            running: Gauge::default(),
            queued: Gauge::default(),
            journal: Gauge::default(),
        };
        figures.register();
        figures
    }
}

impl Metrics {
    fn register(&mut self) {
        let own = self.registry.sub_registry_with_prefix("headwater");
        own.register("streams_started", "Generations started", self.started.clone());
        own.register("streams_refused", "Starts for which there was no slot", self.refused.clone());
        own.register("journal_failures", "Operations of the journal that failed", self.journal_failures.clone());
        own.register("models_passed_over", "Starts to which a model gave no first token", self.passed_over.clone());
        own.register(
            "models_cooling_down",
            "1 for a model that isn't asked after a failure",
            self.cooling_down.clone(),
        );
        own.register("streams_ended", "Generations ended, by how they did", self.ended.clone());
        own.register("streams_running", "Generations that run or wait for a slot", self.running.clone());
        own.register("streams_queued", "Generations that wait for a slot", self.queued.clone());
        own.register("readers", "Connections that read a stream", self.readers.clone());
        own.register("readers_attached", "Readers so far, by what they came for", self.attached.clone());
        own.register_with_unit("journal", "What the journal holds here", Unit::Bytes, self.journal.clone());
        let client = self.registry.sub_registry_with_prefix("gen_ai_client");
        client.register("token_usage", "Tokens of a generation, as its model counts them", self.tokens.clone());
        let operation = client.sub_registry_with_prefix("operation");
        for (name, help, histogram) in [
            ("duration", "From the start of a generation to its end", &self.duration),
            ("time_to_first_chunk", "From the call of the model that answers to its first text", &self.first_chunk),
            ("time_per_output_chunk", "From one piece of text to the next", &self.gap),
        ] {
            operation.register_with_unit(name, help, Unit::Seconds, histogram.clone());
        }
    }

    /// All metrics as text, with these gauges: the generations that run or wait, those that wait, the journal's bytes in
    /// this process, and whether each model cools down.
    pub(crate) fn text<'a>(
        &self,
        running: usize,
        queued: usize,
        journal: usize,
        cooling_down: impl Iterator<Item = (&'a str, bool)>,
    ) -> String {
        for (model, cools_down) in cooling_down {
            let by = ByModel { gen_ai_request_model: model.to_owned() };
            self.cooling_down.get_or_create(&by).set(i64::from(cools_down));
        }
        for (gauge, value) in [(&self.running, running), (&self.queued, queued), (&self.journal, journal)] {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        }
        let mut text = String::new();
        // Writing to a string can't fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    /// A generation begins.
    pub(crate) fn started(&self) {
        self.started.inc();
    }

    /// A start was refused with this problem.
    pub(crate) fn refused(&self, problem: &'static str) {
        self.refused.get_or_create(&Refused { problem }).inc();
    }

    /// A model gave no first token, because of this problem.
    pub(crate) fn passed_over(&self, model: &str, problem: &'static str) {
        let by = PassedOver { gen_ai_request_model: model.to_owned(), problem };
        self.passed_over.get_or_create(&by).inc();
    }

    /// An operation of the journal failed.
    pub(crate) fn journal_failed(&self, operation: &'static str) {
        self.journal_failures.get_or_create(&Operation { operation }).inc();
    }

    /// A reader attaches.
    pub(crate) fn attached(&self, to: Attachment) -> Counted {
        let by = match to {
            Attachment::Start => "start",
            Attachment::Resume => "resume",
            Attachment::Replay => "replay",
        };
        self.attached.get_or_create(&Attached { by }).inc();
        self.readers.inc();
        Counted(self.readers.clone())
    }

    /// The histograms of the model that answers a stream.
    pub(crate) fn of(&self, model: &str) -> OfModel {
        let by = ByModel { gen_ai_request_model: model.to_owned() };
        let first_chunk = self.first_chunk.get_or_create_owned(&by);
        OfModel { first_chunk, gap: self.gap.get_or_create_owned(&by) }
    }

    /// A generation has ended.
    pub(crate) fn ended(&self, model: &str, outcome: &'static str, after: Duration, tokens: Option<Tokens>) {
        let model = || model.to_owned();
        self.ended.get_or_create(&Ended { gen_ai_request_model: model(), outcome }).inc();
        self.duration.get_or_create(&ByModel { gen_ai_request_model: model() }).observe(after.as_secs_f64());
        let Some(Tokens { input, output }) = tokens else { return };
        for (gen_ai_token_type, tokens) in [("input", input), ("output", output)] {
            let by = ByType { gen_ai_request_model: model(), gen_ai_token_type };
            self.tokens.get_or_create(&by).observe(tokens as f64);
        }
    }
}

impl OfModel {
    /// The first piece of text came, this long after the call.
    pub(crate) fn first_chunk(&self, after: Duration) {
        self.first_chunk.observe(after.as_secs_f64());
    }

    /// The next piece of text came, this long after the one before.
    pub(crate) fn next_chunk(&self, after: Duration) {
        self.gap.observe(after.as_secs_f64());
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}
