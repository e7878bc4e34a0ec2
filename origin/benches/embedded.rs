//! The embedded model against llama.cpp's own speed on the same file: one stream's decode loop written by hand,
//! and the same prompt through [`Embedded`], in turn.
//!
//! `cargo bench --bench embedded [-- FLAGS]`, with the origin's flags. Prints tokens/s of each run, and the
//! medians' ratio; then what 1, 2, 4 and 8 streams at once get together, and the gaps while streams join; then the time to the
//! first token of a conversation's second turn, where the first one is kept and where it isn't.

use std::{
    num::NonZeroU32,
    thread,
    time::{Duration, Instant},
};

use futures::{StreamExt, channel::oneshot, executor::block_on, future::join_all};
use headwater_origin::{
    config::{self, Config},
    model::{
        Model, Token,
        embedded::{self, Embedded},
    },
    prompt::{Conversation, Options, Speaker},
};
use llama_cpp_2::{
    context::params::LlamaContextParams,
    llama_batch::LlamaBatch,
    model::{LlamaModel, params::LlamaModelParams},
    sampling::LlamaSampler,
};

const RUNS: usize = 7;
const TOKENS: u32 = 128;
/// From one stream's start to the next one's, where they join.
const JOIN: Duration = Duration::from_millis(200);
/// Asks for more than [`TOKENS`], so that streams that begin together run together.
const PROMPT: &str = "Write a long story about a river and all the towns that it passes";
/// A first message of this many sentences, some 850 tokens, makes a second turn of 1,000.
const SENTENCES: usize = 92;

fn main() {
    let flags = std::env::args_os().filter(|arg| arg != "--bench");
    let tokens = TOKENS.to_string();
    // The same choices in every run.
    let fixed = ["--max-tokens", &tokens, "--seed", "7"].map(Into::into);
    let (settings, max_tokens) = match Config::parse_from_env(flags.chain(fixed)) {
        Ok(config) => (config.embedded, config.max_tokens),
        Err(error) => return eprintln!("{error}"),
    };
    let embedded = match Embedded::load(&settings, max_tokens, false) {
        Ok(embedded) => embedded,
        Err(error) => return eprintln!("{error}"),
    };
    let (mut own, mut theirs) = (Vec::new(), Vec::new());
    for run in 1..=RUNS {
        theirs.push(llama_cpp(&settings));
        own.push(together(&embedded, 1));
        println!("run {run}: llama.cpp {:.1} tokens/s, through the origin {:.1}", theirs[run - 1], own[run - 1]);
    }
    println!(
        "median: llama.cpp {:.1}, origin {:.1}, ratio {:.3}",
        median(&theirs),
        median(&own),
        median(&own) / median(&theirs)
    );
    for streams in [1, 2, 4, 8] {
        let runs: Vec<f64> = (0..RUNS).map(|_| together(&embedded, streams)).collect();
        println!(
            "{streams} streams at once: {:.1} tokens/s together, {:.2} of one",
            median(&runs),
            median(&runs) / median(&own)
        );
    }
    let joins = (0..RUNS).flat_map(|_| joining(&embedded));
    let (middle, last): (Vec<f64>, Vec<f64>) = joins.unzip();
    let worst = middle.iter().zip(&last).map(|(middle, last)| last / middle).fold(0.0, f64::max);
    println!(
        "8 streams, each joining {} ms after the one before: gaps of {:.1} ms, 99th percentile {:.1} ms (medians of \
         the streams); at worst {worst:.1} times the stream's own median",
        JOIN.as_millis(),
        median(&middle) * 1e3,
        median(&last) * 1e3,
    );
    second_turns(&embedded);
}

/// The time to the first token of second turns, each of a conversation of its own: one whose first turn was answered just before,
/// and one that nobody has read.
fn second_turns(embedded: &Embedded) {
    let (mut cold, mut warm) = (Vec::new(), Vec::new());
    for run in 1..=RUNS {
        let message: String = (0..SENTENCES).map(|at| format!("On day {at} the river passed another town. ")).collect();
        // Differs from its first words on.
        let begun = |name: &str| vec![(Speaker::System, format!("{name} {run}.")), (Speaker::User, message.clone())];
        let goes_on = |begun: &[(Speaker, String)], answer: &str| {
            let turn = [(Speaker::Assistant, answer.to_owned()), (Speaker::User, "What came of it all?".into())];
            [begun, &turn].concat()
        };
        let (_, answer) = first_token(embedded, &begun("Warm"));
        let before = embedded.prompt_tokens();
        warm.push(first_token(embedded, &goes_on(&begun("Warm"), &answer)).0);
        let after = embedded.prompt_tokens();
        cold.push(first_token(embedded, &goes_on(&begun("Cold"), &answer)).0);
        println!(
            "second turn {run}: {} tokens, of these {} kept; first token after {:.1} ms, without what is kept {:.1} ms",
            after.0 + after.1 - before.0 - before.1,
            after.1 - before.1,
            warm[run - 1] * 1e3,
            cold[run - 1] * 1e3,
        );
    }
    let (warm, cold) = (median(&warm), median(&cold));
    println!("median: {:.1} ms, without what is kept {:.1} ms, ratio {:.3}", warm * 1e3, cold * 1e3, warm / cold);
}

/// The seconds until an answer's first token, and the whole answer.
fn first_token(embedded: &Embedded, turns: &[(Speaker, String)]) -> (f64, String) {
    let conversation = Conversation::new(turns.iter().cloned()).expect("something is said");
    let began = Instant::now();
    let tokens = embedded.generate(&conversation, &Options::default());
    let texts = tokens.filter_map(|token| async {
        match token {
            Ok(Token::Text(text)) if !text.is_empty() => Some(text),
            _ => None,
        }
    });
    block_on(async {
        futures::pin_mut!(texts);
        let mut answer = texts.next().await.unwrap_or_default();
        let first = began.elapsed().as_secs_f64();
        while let Some(text) = texts.next().await {
            answer += &text;
        }
        (first, answer)
    })
}

/// Tokens/s of this many streams together, while all of them run: from the last one's first token on, until the
/// first one ends.
fn together(embedded: &Embedded, streams: usize) -> f64 {
    let streams = block_on(join_all((0..streams).map(|_| arrivals(embedded, PROMPT, Duration::ZERO))));
    let began = streams.iter().filter_map(|arrivals| arrivals.first()).max();
    let ended = streams.iter().filter_map(|arrivals| arrivals.last()).min();
    let (Some(&began), Some(&ended)) = (began, ended) else { return f64::NAN };
    let within = streams.iter().flatten().filter(|&&at| began < at && at <= ended).count();
    within as f64 / (ended - began).as_secs_f64()
}

/// Of each of 8 streams that join one after the other, the median and the 99th percentile of its gaps, seconds.
fn joining(embedded: &Embedded) -> Vec<(f64, f64)> {
    let streams = block_on(join_all((0..8).map(|place| arrivals(embedded, PROMPT, JOIN * place))));
    let gaps = |arrivals: &Vec<Instant>| {
        let mut gaps: Vec<f64> = arrivals.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
        gaps.sort_by(f64::total_cmp);
        Some((*gaps.get(gaps.len() / 2)?, *gaps.get(gaps.len() * 99 / 100)?))
    };
    streams.iter().filter_map(gaps).collect()
}

/// When each token of an answer came; it is asked for after `pause`.
async fn arrivals(embedded: &Embedded, prompt: &str, pause: Duration) -> Vec<Instant> {
    // A thread of its own: the benchmark needs no clock of a runtime.
    let (woken, wake) = oneshot::channel();
    thread::spawn(move || {
        thread::sleep(pause);
        woken.send(())
    });
    let _ = wake.await;
    let mut tokens = embedded.generate(&Conversation::of_prompt(prompt.to_owned()), &Options::default());
    let mut arrivals = Vec::new();
    while let Some(Ok(Token::Text(text))) = tokens.next().await {
        arrivals.extend((!text.is_empty()).then(Instant::now));
    }
    arrivals
}

/// Tokens/s of llama.cpp by itself, with the same sampling.
fn llama_cpp(settings: &config::Embedded) -> f64 {
    let backend = embedded::backend().expect("llama.cpp starts");
    let model = LlamaModel::load_from_file(backend, &settings.embedded_path, &LlamaModelParams::default())
        .expect("the model loads");
    let params = LlamaContextParams::default()
        .with_n_ctx(NonZeroU32::new(settings.embedded_context))
        .with_n_threads(settings.threads())
        .with_n_threads_batch(settings.threads());
    let mut context = model.new_context(backend, params).expect("there is memory for a context");
    let mut sampler = LlamaSampler::chain_simple([
        LlamaSampler::penalties(model.n_vocab(), 64, settings.repetition_penalty, 0.0, 0.0),
        LlamaSampler::top_k(i32::from(settings.top_k)),
        LlamaSampler::top_p(settings.top_p, 1),
        LlamaSampler::min_p(settings.min_p, 1),
        LlamaSampler::temp(settings.temperature),
        LlamaSampler::dist(7),
    ]);
    let prompt = model.vocab().tokenize(PROMPT.as_bytes(), true, false);
    let mut batch = LlamaBatch::new(512, 1);
    batch.add_sequence(&prompt, 0, false).expect("the prompt fits");
    context.decode(&mut batch).expect("it decodes");
    let mut token = sampler.sample(&context, batch.n_tokens() - 1);
    let began = Instant::now();
    for position in 0..TOKENS as i32 {
        batch.clear();
        batch.add(token, prompt.len() as i32 + position, &[0], true).expect("one token fits");
        context.decode(&mut batch).expect("it decodes");
        token = sampler.sample(&context, 0);
    }
    f64::from(TOKENS) / began.elapsed().as_secs_f64()
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
