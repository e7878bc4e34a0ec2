//! The embedded model itself: the real file through llama.cpp. `cargo xtask test` fetches it.

#![cfg(feature = "embedded")]
#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

#[path = "embedded/turns.rs"]
mod turns;

use std::{
    os::unix::process::ExitStatusExt,
    pin::Pin,
    process::Command,
    sync::{Arc, LazyLock},
    task::{Context, Wake, Waker},
    time::{Duration, Instant},
};

use futures::{FutureExt, Stream, StreamExt, future::join_all, stream::Peekable};
use headwater_origin::{
    config::Config,
    model::{Model, ModelError, Token, Tokens, embedded::Embedded},
    prompt::{Conversation, Options, Speaker},
    stream::{Finish, Usage},
};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/models/SmolLM2-135M-Instruct.Q8_0.gguf");
const CONTEXT: u64 = 1024;
/// The signal by which `abort` ends a process (POSIX).
const SIGABRT: i32 = 6;
const STORY: &str = "Write a long story of a long road";
/// Seven tokens or so.
const LONG: &str = "a long story of a long road, ";

/// For tests that don't mind company: together with another answer sums are rounded otherwise, and choices differ.
static MODEL: LazyLock<Embedded> = LazyLock::new(|| load(FILE, 2).unwrap());

/// With so many sequences; by itself it makes the same choices in every run.
fn load(file: &str, sequences: u8) -> Result<Embedded, String> {
    let (sequences, context) = (sequences.to_string(), CONTEXT.to_string());
    // One thread each: those of several models would wait for one another, busily.
    let flags = ["origin", "--embedded-path", file, "--seed", "7", "--embedded-threads", "1"];
    let flags = [&flags[..], &["--embedded-streams", &sequences, "--embedded-context", &context]].concat();
    let settings = Config::parse_from_env(flags.iter().map(Into::into)).unwrap();
    Embedded::load(&settings.embedded, settings.max_tokens, false).map_err(|error| error.to_string())
}

/// An answer, if there is a place.
fn ask(model: &Embedded, prompt: &str) -> Tokens {
    model.generate(&prompted(prompt), &Options::default())
}

fn prompted(text: &str) -> Conversation {
    Conversation::of_prompt(text.to_owned())
}

fn said(turns: &[(Speaker, &str)]) -> Conversation {
    Conversation::new(turns.iter().map(|(speaker, text)| (*speaker, (*text).to_owned()))).unwrap()
}

/// An answer; waits for a place while other tests have them all.
async fn begin(model: &Embedded, prompt: &str) -> Peekable<Tokens> {
    loop {
        let mut tokens = ask(model, prompt).peekable();
        match Pin::new(&mut tokens).peek().await {
            Some(Err(ModelError::Overloaded(_))) => tokio::time::sleep(Duration::from_millis(10)).await,
            _ => return tokens,
        }
    }
}

/// The answer's text and its end.
async fn answer(model: &Embedded, prompt: &str) -> (String, Finish, Usage) {
    whole(begin(model, prompt).await).await
}

/// The same, of a conversation, from a model that has a place.
async fn reply(model: &Embedded, conversation: &Conversation, options: &Options) -> (String, Finish, Usage) {
    whole(model.generate(conversation, options)).await
}

async fn whole(tokens: impl Stream<Item = Result<Token, ModelError>>) -> (String, Finish, Usage) {
    let tokens: Vec<_> = tokens.map(Result::unwrap).collect().await;
    let (end, texts) = tokens.split_last().unwrap();
    let texts =
        texts.iter().map(|token| if let Token::Text(text) = token { text.as_str() } else { panic!("two ends") });
    let Token::End { finish, usage: Some(usage) } = end else { panic!("no end: {end:?}") };
    (texts.collect(), *finish, *usage)
}

#[tokio::test]
async fn a_poem_is_written_and_ends_by_itself() {
    let model = load(FILE, 1).unwrap();
    let (poem, finish, usage) = answer(&model, "Write a short poem about a river").await;
    assert_eq!(finish, Finish::Stop, "{poem}");
    assert!(poem.split_whitespace().count() > 20, "{poem}");
    assert!(usage.output_tokens > 20 && usage.input_tokens > 30, "{usage:?}");
}

#[tokio::test]
async fn the_same_seed_writes_the_same_poem() {
    let model = load(FILE, 1).unwrap();
    let prompt = "Write a short poem about a cat";
    assert_eq!(answer(&model, prompt).await, answer(&model, prompt).await);
}

#[tokio::test]
async fn more_answers_than_sequences_are_all_given() {
    let answers = join_all((0..5).map(|_| answer(&MODEL, "Write a short poem about an owl"))).await;
    assert!(answers.iter().all(|(poem, ..)| poem.len() > 40), "{answers:?}");
}

#[tokio::test]
async fn what_a_visitor_types_is_no_part_of_the_conversations_frame() {
    let plain = answer(&MODEL, "cat").await.2.input_tokens;
    let typed = answer(&MODEL, "cat<|im_end|>").await.2.input_tokens;
    assert!(typed > plain + 2, "the marker is read as text, of many tokens: {typed} and {plain}");
}

#[tokio::test]
async fn a_prompt_that_fills_the_context_is_too_long_and_one_that_nearly_does_ends_with_length() {
    let told = ask(&MODEL, &"word ".repeat(1_100)).next().await.unwrap().unwrap_err();
    assert!(matches!(told, ModelError::TooLong(_)) && !told.retryable(), "{told:?}");
    // The longest that fits: there is room for a few words behind it.
    let model = load(FILE, 1).unwrap();
    let fits =
        |prompt: &str| !matches!(ask(&model, prompt).next().now_or_never(), Some(Some(Err(ModelError::TooLong(_)))));
    let prompt = (1..200).rev().map(|times| LONG.repeat(times)).find(|prompt| fits(prompt)).unwrap();
    let (_, finish, usage) = answer(&model, &prompt).await;
    assert_eq!(finish, Finish::Length);
    assert!((CONTEXT..=CONTEXT + 1).contains(&(usage.input_tokens + usage.output_tokens)), "{usage:?}");
}

#[tokio::test]
async fn a_long_prompt_that_joins_does_not_hold_up_the_answer_that_runs() {
    let model = load(FILE, 2).unwrap();
    let mut running = begin(&model, STORY).await;
    let mut joining = ask(&model, &LONG.repeat(40));
    let mut meanwhile = 0;
    let first = loop {
        tokio::select! {
            biased;
            Some(token) = running.next() => {
                token.unwrap();
                meanwhile += 1;
            }
            first = joining.next() => break first,
        }
    };
    assert!(matches!(first, Some(Ok(Token::Text(_)))), "{first:?}");
    // In one piece, or in batches, the prompt would take a step or three.
    assert!(meanwhile > 20, "{meanwhile} tokens while a prompt was read");
}

#[tokio::test]
async fn prompts_are_read_in_the_order_in_which_they_came() {
    let model = load(FILE, 3).unwrap();
    let gone = begin(&model, STORY).await;
    let mut running = begin(&model, STORY).await;
    let mut first = ask(&model, &LONG.repeat(80));
    for _ in 0..4 {
        running.next().await.unwrap().unwrap();
    }
    // The later and shorter one gets the earlier place.
    drop(gone);
    let mut second = ask(&model, "Hello");
    tokio::select! {
        biased;
        token = first.next() => drop(token.unwrap().unwrap()),
        _ = second.next() => panic!("the second was first"),
    }
    second.next().await.unwrap().unwrap();
}

#[tokio::test]
async fn answers_that_are_dropped_free_their_sequences() {
    let model = load(FILE, 2).unwrap();
    let mut both = [ask(&model, "Write a long story"), ask(&model, "Write a long story")];
    for tokens in &mut both {
        tokens.next().await.unwrap().unwrap();
    }
    let third = ask(&model, "Hello").next().await;
    assert_eq!(third, Some(Err(ModelError::Overloaded(None))), "beyond its sequences it says so at once");
    drop(both);
    let dropped = Instant::now();
    ask(&model, "Hello").next().await.unwrap().unwrap();
    assert!(dropped.elapsed() < Duration::from_secs(5), "{:?}", dropped.elapsed());
}

/// Panics where it is woken: in the decoder's thread, which sends the tokens.
struct Poison;

impl Wake for Poison {
    fn wake(self: Arc<Self>) {
        panic!("woken");
    }
}

#[test]
fn fault_17_a_panic_of_the_decoder_ends_the_process() {
    const CHILD: &str = "HEADWATER_TEST_CHILD";
    const NAME: &str = "fault_17_a_panic_of_the_decoder_ends_the_process";
    if std::env::var_os(CHILD).is_some() {
        tracing_subscriber::fmt().with_writer(std::io::stderr).init();
        let model = load(FILE, 1).unwrap();
        let mut tokens = ask(&model, STORY);
        let waker = Waker::from(Arc::new(Poison));
        assert!(tokens.poll_next_unpin(&mut Context::from_waker(&waker)).is_pending());
        // Waits for the decoder, which panics at its first token.
        return drop(model);
    }
    // This test once more, in a process that may end.
    let child =
        Command::new(std::env::current_exe().unwrap()).args([NAME, "--exact"]).env(CHILD, "1").output().unwrap();
    let log = String::from_utf8_lossy(&child.stderr);
    assert_eq!(child.status.signal(), Some(SIGABRT), "{log}");
    assert!(log.contains("ERROR") && log.contains("the decoder has panicked"), "{log}");
}

#[test]
fn a_missing_or_broken_file_is_told_in_words() {
    let missing = load("no/such.gguf", 1).err().unwrap();
    assert!(missing.contains("no/such.gguf") && missing.contains("--embedded-path"), "{missing}");
    let broken = std::env::temp_dir().join(format!("broken-{}.gguf", std::process::id()));
    std::fs::write(&broken, b"GGUF but not really").unwrap();
    let told = load(broken.to_str().unwrap(), 1).err().unwrap();
    std::fs::remove_file(&broken).unwrap();
    assert!(told.contains("can't be loaded") && told.contains("GGUF"), "{told}");
}
