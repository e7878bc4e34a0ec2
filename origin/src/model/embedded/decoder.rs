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

use super::{Job, Settings};
use crate::{
    model::{ModelError, Token},
    stream::{Finish, Usage},
};

/// The most tokens of one step: a prompt with nothing beside it. A step can't be interrupted.
const BATCH: usize = 128;
/// Tokens of prompts in a step, for each answer that runs beside them: a step then takes at most four times what it
/// would without, even where llama.cpp has no faster kernel for many tokens than for one.
const SLICE: usize = 3;
/// The number of last tokens that the repetition penalty counts.
const PENALTY_WINDOW: i32 = 64;

/// One running answer. Its index in [`Decoder::sequences`] is its id in llama.cpp's cache.
struct Sequence {
    job: Job,
    /// The number of this answer, in the order of arrival.
    number: u64,
    sampler: LlamaSampler,
    /// The number of the prompt's tokens that are decoded.
    prefilled: usize,
    /// The last token sampled, not yet decoded.
    last: Option<LlamaToken>,
    /// The number of sampled tokens.
    sampled: u32,
    /// Sampled bytes that are no whole character yet.
    partial: Vec<u8>,
}

struct Decoder<'a> {
    model: &'a LlamaModel,
    settings: &'a Settings,
    max_tokens: u32,
    context: LlamaContext<'a>,
    batch: LlamaBatch<'static>,
    sequences: Vec<Option<Sequence>>,
    /// The number of answers so far.
    taken: u64,
}

/// Decodes until all senders of `jobs` are gone; an answer has at most `max_tokens`. Tells `ready` first whether there is
/// a context to decode in.
pub(super) fn run(
    backend: &LlamaBackend,
    model: &LlamaModel,
    settings: &Settings,
    max_tokens: u32,
    jobs: &Receiver<Job>,
    ready: &Sender<Result<(), String>>,
) {
    let streams = u32::from(settings.embedded_streams);
    let params = LlamaContextParams::default()
        .with_n_ctx(NonZeroU32::new(settings.embedded_context * streams))
        .with_n_seq_max(streams)
        .with_n_batch(BATCH as u32)
        .with_n_ubatch(BATCH as u32)
        .with_n_threads(settings.threads())
        .with_n_threads_batch(settings.threads());
    // Where the loader has given up, both channels are closed.
    match model.new_context(backend, params) {
        Ok(context) => {
            let _ = ready.send(Ok(()));
            let batch = LlamaBatch::new(BATCH, 1);
            let sequences = (0..streams).map(|_| None).collect();
            Decoder { model, settings, max_tokens, context, batch, sequences, taken: 0 }.run(jobs);
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
            self.release_left();
            if let Err(error) = self.step() {
                tracing::error!(error, "decoding failed");
                for slot in 0..self.sequences.len() {
                    self.end(slot, Err(ModelError::BrokeOff(error.clone())));
                }
            }
        }
    }

    /// Gives free sequences to queued jobs; waits for a job where no answer runs. Returns whether more jobs may come.
    fn take(&mut self, jobs: &Receiver<Job>) -> bool {
        while let Some(free) = self.sequences.iter().position(Option::is_none) {
            let idle = self.sequences.iter().all(Option::is_none);
            let job = if idle { jobs.recv().map_err(|_| TryRecvError::Disconnected) } else { jobs.try_recv() };
            match job {
                Ok(job) => self.sequences[free] = Some(self.sequence(job)),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return !idle,
            }
        }
        true
    }

    fn sequence(&mut self, job: Job) -> Sequence {
        let sampler = sampler(self.settings, self.model.n_vocab());
        self.taken += 1;
        Sequence { job, number: self.taken, sampler, prefilled: 0, last: None, sampled: 0, partial: Vec::new() }
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
        let Self { batch, sequences, .. } = self;
        batch.clear();
        // For each sequence the index in the batch from which its next token is sampled.
        let mut outputs: Vec<(usize, i32)> = Vec::with_capacity(sequences.len());
        let add = |batch: &mut LlamaBatch<'_>, token, position: usize, slot: usize, output| {
            let (position, slot) = (i32::try_from(position), i32::try_from(slot));
            let (Ok(position), Ok(slot)) = (position, slot) else {
                return Err("a position is out of range".to_owned());
            };
            batch.add(token, position, &[slot], output).map_err(|error| error.to_string())
        };
        for (slot, sequence) in sequences.iter_mut().enumerate() {
            if let Some(sequence) = sequence
                && let Some(token) = sequence.last
            {
                outputs.push((slot, batch.n_tokens()));
                add(batch, token, sequence.position(), slot, true)?;
            }
        }
        let running = outputs.len();
        let mut room = if running == 0 { BATCH } else { (SLICE * running).min(BATCH - running) };
        let waiting = sequences.iter_mut().enumerate().filter_map(|(slot, sequence)| Some((slot, sequence.as_mut()?)));
        let mut waiting: Vec<_> = waiting.filter(|(_, sequence)| sequence.last.is_none()).collect();
        // First come, first served: a slot has no rank.
        waiting.sort_by_key(|(_, sequence)| sequence.number);
        for (slot, sequence) in waiting {
            let prompt = &sequence.job.prompt;
            let slice = sequence.prefilled..prompt.len().min(sequence.prefilled + room);
            room -= slice.len();
            for position in slice.clone() {
                let output = position + 1 == prompt.len();
                if output {
                    outputs.push((slot, batch.n_tokens()));
                }
                add(batch, prompt[position], position, slot, output)?;
            }
            sequence.prefilled = slice.end;
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
        vocab.token_to_piece_into(token, &mut sequence.partial, false, None);
        sequence.last = Some(token);
        let text = take_whole_chars(&mut sequence.partial);
        if !text.is_empty() && sequence.job.answer.unbounded_send(Ok(Token::Text(text))).is_err() {
            return self.release(slot);
        }
        if sequence.sampled >= self.max_tokens || sequence.position() >= self.settings.embedded_context as usize {
            self.end(slot, Ok(Finish::Length));
        }
    }

    /// Ends an answer.
    fn end(&mut self, slot: usize, finish: Result<Finish, ModelError>) {
        if let Some(sequence) = &mut self.sequences[slot] {
            let rest = String::from_utf8_lossy(&std::mem::take(&mut sequence.partial)).into_owned();
            let usage =
                Usage { input_tokens: sequence.job.prompt.len() as u64, output_tokens: u64::from(sequence.sampled) };
            let answer = &sequence.job.answer;
            // Fails where the receiver is dropped.
            let _ = answer.unbounded_send(Ok(Token::Text(rest)));
            let _ = answer.unbounded_send(finish.map(|finish| Token::End { finish, usage: Some(usage) }));
        }
        self.release(slot);
    }

    fn release(&mut self, slot: usize) {
        self.sequences[slot] = None;
        let removed = i32::try_from(slot).map(|id| self.context.kv_cache_seq_rm(id, None, None));
        if !matches!(removed, Ok(Ok(()))) {
            tracing::error!(slot, "a sequence's cache could not be freed");
        }
    }
}

impl Sequence {
    /// The position of the last sampled token.
    fn position(&self) -> usize {
        self.job.prompt.len() + self.sampled.saturating_sub(1) as usize
    }
}

/// The sampler chain for this vocabulary.
fn sampler(settings: &Settings, vocabulary: i32) -> LlamaSampler {
    let seed = settings.seed.unwrap_or_else(rand::random);
    let penalties = LlamaSampler::penalties(vocabulary, PENALTY_WINDOW, settings.repetition_penalty, 0.0, 0.0);
    if settings.temperature <= 0.0 {
        return LlamaSampler::chain_simple([penalties, LlamaSampler::greedy()]);
    }
    LlamaSampler::chain_simple([
        penalties,
        LlamaSampler::top_k(i32::from(settings.top_k)),
        LlamaSampler::top_p(settings.top_p, 1),
        LlamaSampler::min_p(settings.min_p, 1),
        LlamaSampler::temp(settings.temperature),
        LlamaSampler::dist(seed),
    ])
}

/// Takes the whole characters from the front; bytes that are no part of one become U+FFFD.
fn take_whole_chars(bytes: &mut Vec<u8>) -> String {
    let mut text = String::new();
    let mut taken = 0;
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        taken += chunk.valid().len();
        let invalid = chunk.invalid();
        // Invalid bytes at the very end may be the beginning of a character.
        let incomplete = taken + invalid.len() == bytes.len()
            && std::str::from_utf8(invalid).is_err_and(|error| error.error_len().is_none());
        if incomplete || invalid.is_empty() {
            break;
        }
        text.push(char::REPLACEMENT_CHARACTER);
        taken += invalid.len();
    }
    bytes.drain(..taken);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_is_never_split() {
        let whole = "a\u{e9}\u{1f9a6}\u{2028}z";
        let (mut partial, mut text) = (Vec::new(), String::new());
        for byte in whole.bytes() {
            partial.push(byte);
            text.push_str(&take_whole_chars(&mut partial));
        }
        assert_eq!(text, whole);
        assert!(partial.is_empty());
    }

    #[test]
    fn what_can_be_no_character_is_replaced_at_once() {
        let mut bytes = b"a\xff\xc3(\xf0\x9f".to_vec();
        assert_eq!(take_whole_chars(&mut bytes), "a\u{fffd}\u{fffd}(");
        assert_eq!(bytes, b"\xf0\x9f");
    }
}
