//! The decode loop: continuous batching. Each step decodes one token of every running answer, and a slice of
//! the prompts that are waiting to begin, in one batch.

use std::{
    num::NonZeroU32,
    process,
    sync::mpsc::{Receiver, Sender, TryRecvError},
    thread,
};

use llama_cpp_2::{
    context::{LlamaContext, params::LlamaContextParams},
    llama_backend::LlamaBackend,
    llama_batch::LlamaBatch,
    model::LlamaModel,
    sampling::LlamaSampler,
    token::LlamaToken,
};

use super::{Job, Read, Settings, cache::Cache, sampler::sampler};
use crate::{
    model::{ModelError, Token},
    stream::{Finish, Usage},
};

/// The most tokens of one step: a prompt with nothing beside it. A step can't be interrupted.
const BATCH: usize = 128;
/// Tokens of prompts in a step, for each answer that runs beside them: a step then takes at most four times what it
/// would without, even where llama.cpp has no faster kernel for many tokens than for one.
const SLICE: usize = 3;

/// One running answer. Its index in [`Decoder::sequences`] is its id in llama.cpp's cache.
struct Sequence {
    job: Job,
    /// The number of this answer, in the order of arrival.
    number: u64,
    sampler: LlamaSampler,
    /// The last token sampled, not yet decoded.
    last: Option<LlamaToken>,
    /// The number of sampled tokens.
    sampled: u32,
}

struct Decoder<'a> {
    model: &'a LlamaModel,
    settings: &'a Settings,
    read: &'a Read,
    context: LlamaContext<'a>,
    batch: LlamaBatch<'static>,
    sequences: Vec<Option<Sequence>>,
    cache: Cache,
    /// The number of answers so far.
    taken: u64,
}

/// Decodes until all senders of `jobs` are gone. Tells `ready` first whether there is a context to decode in.
pub(super) fn run(
    backend: &LlamaBackend,
    model: &LlamaModel,
    settings: &Settings,
    read: &Read,
    jobs: &Receiver<Job>,
    ready: &Sender<Result<(), String>>,
) {
    let streams = u32::from(settings.embedded_streams);
    let params = LlamaContextParams::default()
        .with_n_ctx(NonZeroU32::new(settings.embedded_context * streams))
        .with_n_seq_max(streams)
        // Each sequence has its own part of the cells, and all of a sliding window's: what is kept takes nothing from others, and
        // can be cut anywhere.
        .with_kv_unified(false)
        .with_swa_full(true)
        .with_n_batch(BATCH as u32)
        .with_n_ubatch(BATCH as u32)
        .with_n_threads(settings.threads())
        .with_n_threads_batch(settings.threads());
    // Where the loader has given up, both channels are closed.
    match model.new_context(backend, params) {
        Ok(context) => {
            let _ = ready.send(Ok(()));
            let batch = LlamaBatch::new(BATCH, 1);
            let sequences: Vec<_> = (0..streams).map(|_| None).collect();
            let cache = Cache::new(sequences.len());
            Decoder { model, settings, read, context, batch, sequences, cache, taken: 0 }.run(jobs);
        }
        Err(error) => drop(ready.send(Err(error.to_string()))),
    }
}

/// Ends the process where its thread panics. Without a decoder every start would fail until somebody looks; a supervisor
/// starts a process that has ended again.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            tracing::error!("the decoder has panicked; the process ends");
            process::abort();
        }
    }
}

/// Bytes of llama.cpp's cache for each token, keys and values in 16 bits.
pub(super) fn cache_bytes(model: &LlamaModel) -> u64 {
    let head = u64::from(model.n_embd().unsigned_abs()) / u64::from(model.n_head().max(1));
    2 * 2 * u64::from(model.n_layer()) * u64::from(model.n_head_kv()) * head
}

impl Decoder<'_> {
    fn run(mut self, jobs: &Receiver<Job>) {
        // Dropped before `self`, whose own drop may not go well behind a panic.
        let _guard = AbortOnPanic;
        while self.take(jobs) {
            if let Err(error) = self.step() {
                tracing::error!(error, "decoding failed");
                for slot in 0..self.sequences.len() {
                    if self.sequences[slot].is_some() {
                        self.end(slot, Err(ModelError::BrokeOff(error.clone())));
                        // Nobody knows what of the batch is in its cells.
                        self.cache.clear(&mut self.context, slot);
                    }
                }
            }
        }
    }

    /// Gives free sequences to queued jobs; waits for a job where no answer runs. Returns whether more jobs may come.
    fn take(&mut self, jobs: &Receiver<Job>) -> bool {
        loop {
            self.release_left();
            if self.sequences.iter().all(Option::is_some) {
                return true;
            }
            let idle = self.sequences.iter().all(Option::is_none);
            let job = if idle { jobs.recv().map_err(|_| TryRecvError::Disconnected) } else { jobs.try_recv() };
            match job {
                Ok(job) => self.begin(job),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return !idle,
            }
        }
    }

    /// Gives a job a free sequence. There is one.
    fn begin(&mut self, job: Job) {
        // Whoever leaves an answer and asks on finds what was kept.
        self.release_left();
        let Some(slot) = self.cache.choose(|slot| self.sequences[slot].is_some(), &job.prompt) else { return };
        let kept = self.cache.cut(&mut self.context, slot, &job.prompt);
        self.read.count(job.prompt.len() - kept, kept);
        let sampler = sampler(self.settings, &job.options, job.max_tokens, self.model.n_vocab());
        self.taken += 1;
        self.sequences[slot] = Some(Sequence { job, number: self.taken, sampler, last: None, sampled: 0 });
    }

    /// Frees the sequences of answers whose receiver is dropped.
    fn release_left(&mut self) {
        for slot in 0..self.sequences.len() {
            if self.sequences[slot].as_ref().is_some_and(|sequence| sequence.job.answer.is_closed()) {
                self.release(slot);
            }
        }
    }

    /// Decodes one batch and samples from it.
    fn step(&mut self) -> Result<(), String> {
        let Self { batch, sequences, cache, .. } = self;
        batch.clear();
        // For each sequence the index in the batch from which its next token is sampled.
        let mut outputs: Vec<(usize, i32)> = Vec::with_capacity(sequences.len());
        for (slot, sequence) in sequences.iter().enumerate() {
            if let Some(token) = sequence.as_ref().and_then(|sequence| sequence.last) {
                outputs.push((slot, batch.n_tokens()));
                add(batch, cache, token, slot, true)?;
            }
        }
        let running = outputs.len();
        let mut room = if running == 0 { BATCH } else { (SLICE * running).min(BATCH - running) };
        let waiting = sequences.iter().enumerate().filter_map(|(slot, sequence)| Some((slot, sequence.as_ref()?)));
        let mut waiting: Vec<_> = waiting.filter(|(_, sequence)| sequence.last.is_none()).collect();
        // First come, first served: a slot has no rank.
        waiting.sort_by_key(|(_, sequence)| sequence.number);
        for (slot, sequence) in waiting {
            let prompt = &sequence.job.prompt;
            let read = cache.tokens(slot).len();
            let slice = read..prompt.len().min(read + room);
            room -= slice.len();
            for position in slice {
                let output = position + 1 == prompt.len();
                if output {
                    outputs.push((slot, batch.n_tokens()));
                }
                add(batch, cache, prompt[position], slot, output)?;
            }
        }
        if batch.n_tokens() == 0 {
            return Ok(());
        }
        self.context.decode(&mut self.batch).map_err(|error| error.to_string())?;
        for (slot, output) in outputs {
            self.sample(slot, output);
        }
        Ok(())
    }

    /// Samples a sequence's next token and sends its text.
    fn sample(&mut self, slot: usize, output: i32) {
        let Some(sequence) = &mut self.sequences[slot] else { return };
        let token = sequence.sampler.sample(&self.context, output);
        sequence.sampled += 1;
        let vocab = self.model.vocab();
        if vocab.is_eog(token) {
            return self.end(slot, Ok(Finish::Stop));
        }
        vocab.token_to_piece_into(token, &mut sequence.job.output.bytes, false, None);
        sequence.last = Some(token);
        let mut stopped = false;
        if let Some(told) = sequence.job.output.more() {
            stopped = told.stopped;
            if !told.tokens().all(|token| sequence.send(Ok(token))) {
                return self.release(slot);
            }
        }
        if stopped {
            self.end(slot, Ok(Finish::Stop));
        } else if sequence.sampled >= sequence.job.max_tokens
            || self.cache.tokens(slot).len() >= self.settings.embedded_context as usize
        {
            self.end(slot, Ok(Finish::Length));
        }
    }

    /// Ends an answer.
    fn end(&mut self, slot: usize, finish: Result<Finish, ModelError>) {
        if let Some(sequence) = &mut self.sequences[slot] {
            let usage =
                Usage { input_tokens: sequence.job.prompt.len() as u64, output_tokens: u64::from(sequence.sampled) };
            let rest = sequence.job.output.end(finish == Ok(Finish::Stop));
            let finish = if rest.stopped { Ok(Finish::Stop) } else { finish };
            if !rest.is_empty() {
                for token in rest.tokens() {
                    sequence.send(Ok(token));
                }
            }
            sequence.send(finish.map(|finish| Token::End { finish, usage: Some(usage) }));
        }
        self.release(slot);
    }

    /// Frees a sequence, which keeps what is decoded.
    fn release(&mut self, slot: usize) {
        self.sequences[slot] = None;
        self.cache.keep(slot);
    }
}

impl Sequence {
    /// Returns whether the answer's receiver is there.
    fn send(&self, token: Result<Token, ModelError>) -> bool {
        self.job.answer.unbounded_send(token).is_ok()
    }
}

/// Adds a sequence's next token to a batch; `output`: another one is sampled behind it.
fn add(
    batch: &mut LlamaBatch<'_>,
    cache: &mut Cache,
    token: LlamaToken,
    slot: usize,
    output: bool,
) -> Result<(), String> {
    let tokens = cache.tokens(slot);
    let (Ok(position), Ok(id)) = (i32::try_from(tokens.len()), i32::try_from(slot)) else {
        return Err("a position is out of range".into());
    };
    tokens.push(token);
    batch.add(token, position, &[id], output).map_err(|error| error.to_string())
}
