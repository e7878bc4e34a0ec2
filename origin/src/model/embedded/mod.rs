//! A model in this process: any GGUF file, run by llama.cpp. One thread decodes for all streams together.
//!
//! # Layout
//! - `chat`, `template`: a conversation becomes tokens.
//! - `decoder`: tokens become an answer; `cache`: those of earlier turns; `sampler`: how the next one is chosen.
//! - `output`, `stop`: what of an answer is told.

mod cache;
mod chat;
mod decoder;
mod output;
mod sampler;
mod stop;
mod template;

use std::{
    num::NonZeroUsize,
    path::Path,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    thread,
    time::Instant,
};

use futures::{
    Stream, StreamExt,
    channel::mpsc::{self, UnboundedReceiver, UnboundedSender},
    stream,
};
use llama_cpp_2::{
    LlamaCppError, LogOptions, llama_backend::LlamaBackend, model::LlamaModel, model::params::LlamaModelParams,
    send_logs_to_tracing, token::LlamaToken,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use self::{chat::ChatTemplate, output::Output};
use super::{Model, ModelError, Token, Tokens};
use crate::{
    config::Embedded as Settings,
    prompt::{Conversation, Format, Options},
};

/// A model loaded from a file.
pub struct Embedded {
    model: Arc<LlamaModel>,
    chat: ChatTemplate,
    context: usize,
    /// The most bytes that one token stands for.
    longest: usize,
    streams: usize,
    /// The most tokens of an answer.
    max_tokens: u32,
    /// One permit for each answer at once.
    permits: Arc<Semaphore>,
    reasoning: bool,
    read: Arc<Read>,
    decoder: DecoderThread,
}

/// Counts the tokens of all prompts.
#[derive(Default)]
struct Read {
    read: AtomicU64,
    kept: AtomicU64,
}

impl Read {
    fn count(&self, read: usize, kept: usize) {
        self.read.fetch_add(read as u64, Ordering::Relaxed);
        self.kept.fetch_add(kept as u64, Ordering::Relaxed);
    }
}

/// The decoder's thread. Dropping this ends the thread, and waits for that.
///
/// A process that exits while llama.cpp computes is killed by SIGSEGV: the exit frees what the computation uses.
struct DecoderThread {
    /// `None` once the thread is to end.
    jobs: Option<std::sync::mpsc::Sender<Job>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl DecoderThread {
    /// Queues a job.
    ///
    /// # Errors
    /// The thread is ending.
    fn send(&self, job: Job) -> Result<(), ModelError> {
        let sent = self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok());
        if sent { Ok(()) } else { Err(ModelError::BrokeOff("the decoder has ended".into())) }
    }
}

impl Drop for DecoderThread {
    fn drop(&mut self) {
        self.jobs = None;
        // A panic during decoding has ended the process; one before that is the loader's error.
        let _ = self.thread.take().map(thread::JoinHandle::join);
    }
}

/// An answer's tokens. Holds its permit until it is dropped.
struct Answer {
    tokens: UnboundedReceiver<Result<Token, ModelError>>,
    _permit: OwnedSemaphorePermit,
}

impl Stream for Answer {
    type Item = Result<Token, ModelError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.tokens.poll_next_unpin(context)
    }
}

/// A queued prompt. Dropping the receiver cancels it.
struct Job {
    prompt: Vec<LlamaToken>,
    options: Options,
    /// The most tokens of the answer.
    max_tokens: u32,
    output: Output,
    answer: UnboundedSender<Result<Token, ModelError>>,
}

/// A model that can't be used. Each message names the mend.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// No file at the path.
    #[error(
        "there is no model at {0}; `cargo xtask dev` fetches the default one, and --embedded-path names any other GGUF file"
    )]
    Missing(String),
    /// llama.cpp can't read it.
    #[error(
        "the model at {path} can't be loaded: {reason}; it must be a whole GGUF file: delete it and fetch it again"
    )]
    Broken {
        /// The file.
        path: String,
        /// What llama.cpp says.
        reason: String,
    },
    /// It isn't made for chat.
    #[error("the model at {path} has no usable chat template: {reason}; choose an instruction-tuned model")]
    NoChat {
        /// The file.
        path: String,
        /// What is wrong with its template.
        reason: String,
    },
    /// The memory for its context, or the thread, isn't to be had.
    #[error(
        "the model at {path} can't be started: {reason}; try a smaller --embedded-context or fewer --embedded-streams"
    )]
    Start {
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
}

/// llama.cpp, started once in this process; its log goes to ours.
///
/// # Errors
/// It can't be started.
pub fn backend() -> Result<&'static LlamaBackend, &'static LlamaCppError> {
    static BACKEND: OnceLock<Result<LlamaBackend, LlamaCppError>> = OnceLock::new();
    let start = || {
        send_logs_to_tracing(LogOptions::default());
        LlamaBackend::init()
    };
    BACKEND.get_or_init(start).as_ref()
}

impl Embedded {
    /// Loads the model, whose answers have at most `max_tokens` and whose thoughts are passed on with `reasoning`, and starts
    /// its thread; takes a moment, and a line of the log at its begin and end.
    ///
    /// # Errors
    /// The file is missing, broken or not made for chat, or there is too little memory.
    pub fn load(settings: &Settings, max_tokens: u32, reasoning: bool) -> Result<Self, LoadError> {
        let path = settings.embedded_path.display().to_string();
        if !Path::new(&path).is_file() {
            return Err(LoadError::Missing(path));
        }
        let began = Instant::now();
        tracing::info!(path, "loading the model");
        let broken =
            |error: &dyn std::error::Error| LoadError::Broken { path: path.clone(), reason: error.to_string() };
        let backend = backend().map_err(|error| broken(&error))?;
        let model =
            LlamaModel::load_from_file(backend, &path, &LlamaModelParams::default()).map_err(|error| broken(&error))?;
        let chat = ChatTemplate::of(&model).map_err(|reason| LoadError::NoChat { path: path.clone(), reason })?;
        let cpus = thread::available_parallelism().map_or(usize::MAX, NonZeroUsize::get);
        for warning in warnings(settings, cpus, model.n_ctx_train()) {
            tracing::warn!("{warning}");
        }
        let model = Arc::new(model);
        let (jobs, received) = std::sync::mpsc::channel();
        let (ready, started) = std::sync::mpsc::channel();
        let read = Arc::<Read>::default();
        let thread = thread::Builder::new().name("decoder".into()).spawn({
            let (model, settings, read) = (model.clone(), settings.clone(), read.clone());
            move || decoder::run(backend, &model, &settings, &read, &received, &ready)
        });
        let not_started = |reason: String| LoadError::Start { path: path.clone(), reason };
        let thread = thread.map_err(|error| not_started(error.to_string()))?;
        let decoder = DecoderThread { jobs: Some(jobs), thread: Some(thread) };
        // Without an answer the thread has panicked.
        let started: Result<(), String> = started.recv().unwrap_or_else(|_| Err("its thread ended".into()));
        started.map_err(not_started)?;
        let (context, streams) = (settings.embedded_context as usize, usize::from(settings.embedded_streams));
        let cache = decoder::cache_bytes(&model) * context as u64 * streams as u64;
        tracing::info!(
            path,
            seconds = began.elapsed().as_secs_f32(),
            streams,
            context,
            cache = %bytesize::ByteSize(cache),
            "the model is ready"
        );
        let permits = Arc::new(Semaphore::new(streams));
        let vocab = model.vocab();
        // As the file spells them, which is no shorter than what they stand for.
        let lengths = vocab.tokens().filter_map(|token| Some(vocab.text(token)?.to_bytes().len()));
        let longest = lengths.max().unwrap_or_default().max(1);
        Ok(Self { model, chat, context, longest, streams, max_tokens, permits, reasoning, read, decoder })
    }

    /// How many tokens of prompts were read so far, and how many needn't be, because an earlier turn had read or written them.
    pub fn prompt_tokens(&self) -> (u64, u64) {
        (self.read.read.load(Ordering::Relaxed), self.read.kept.load(Ordering::Relaxed))
    }

    fn job(&self, conversation: &Conversation, options: &Options) -> Result<Tokens, ModelError> {
        if options.format != Format::Text {
            return Err(ModelError::Unsupported(
                "response_format",
                "this model can't promise JSON; ask for it in words",
            ));
        }
        let bytes: usize = conversation.texts().map(|text| text.trim().len()).sum();
        // What no tokens of this vocabulary can hold isn't tokenized: a megabyte takes seconds.
        if bytes / self.longest >= self.context {
            let reason = format!("{bytes} bytes of text don't fit a context of {} tokens", self.context);
            return Err(ModelError::TooLong(reason));
        }
        let prompt = self.chat.tokens(&self.model.vocab(), conversation).map_err(ModelError::Refused)?;
        if prompt.len() >= self.context {
            let reason = format!("{} tokens don't fit a context of {}", prompt.len(), self.context);
            return Err(ModelError::TooLong(reason));
        }
        let permit = self.permits.clone().try_acquire_owned().map_err(|_| ModelError::Overloaded(None))?;
        let (answer, tokens) = mpsc::unbounded();
        let max_tokens = options.max_tokens.map_or(self.max_tokens, |wanted| wanted.min(self.max_tokens));
        let output = Output::new(self.reasoning, &options.stop);
        let job = Job { prompt, options: options.clone(), max_tokens, output, answer };
        self.decoder.send(job)?;
        Ok(Answer { tokens, _permit: permit }.boxed())
    }
}

impl Model for Embedded {
    fn name(&self) -> &'static str {
        "embedded"
    }

    fn concurrency(&self) -> Option<usize> {
        Some(self.streams)
    }

    fn ignored(&self, options: &Options) -> Vec<&'static str> {
        options.reasoning_effort.iter().map(|_| "reasoning_effort").collect()
    }

    fn generate(&self, conversation: &Conversation, options: &Options) -> Tokens {
        match self.job(conversation, options) {
            Ok(tokens) => tokens,
            Err(error) => stream::once(async { Err(error) }).boxed(),
        }
    }
}

/// Warnings about settings that work badly on this many CPUs, or with a model that was trained with contexts of `trained`
/// tokens.
fn warnings(settings: &Settings, cpus: usize, trained: u32) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Some(threads) = settings.embedded_threads.filter(|&threads| usize::from(threads) > cpus) {
        warnings.push(format!(
            "--embedded-threads is {threads}, but there are {cpus} CPUs: threads that wait for a CPU hold up the others"
        ));
    }
    let context = settings.embedded_context;
    if context > trained {
        warnings.push(format!(
            "--embedded-context is {context}, but the model was trained with {trained}: beyond that its answers get worse"
        ));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn settings_that_work_badly_are_warned_of() {
        let warned = |flags: &[&str]| {
            let flags = ["origin"].iter().chain(flags);
            let settings = Config::parse_from_env(flags.map(Into::into)).unwrap().embedded;
            warnings(&settings, 2, 2048).join("\n")
        };
        assert_eq!(warned(&[]), "");
        assert_eq!(warned(&["--embedded-threads", "2", "--embedded-context", "2048"]), "");
        assert!(warned(&["--embedded-threads", "3"]).contains("--embedded-threads is 3, but there are 2 CPUs"));
        assert!(warned(&["--embedded-context", "2049"]).contains("--embedded-context is 2049"));
    }
}
