//! FAULT 30: a provider that accepts and stays silent, with another model behind it.

use std::time::Duration;

use headwater_origin_testing::{events, first_events, open, terminal};
use serde_json::json;
use tokio::time::{Instant, interval, sleep, timeout};

use crate::{
    faults::{GOOD, with_fallback},
    protocols::{OPENAI, PROTOCOLS},
    provider::{Answer, Provider, Step},
};

/// The time from one start to the next.
const EVERY: Duration = Duration::from_millis(200);
/// For so long.
const STARTS: usize = 30;
/// Those of the first second, in which nobody can know, and of a little more on a busy machine: they wait for the silent
/// provider.
const FIRST: usize = 7;
/// The first token of all others comes within a second of waiting at most, and what the other model takes.
const SOON: Duration = Duration::from_millis(1500);
/// A provider that is back is used after its cool-down at the latest, here the third.
const BACK: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_30_starts_go_on_behind_a_silent_provider_which_one_at_a_time_asks_until_it_is_back() {
    let silent = Provider::spawn(Answer::stream([Step::Hang])).await;
    let good = Provider::spawn(Answer::text(PROTOCOLS[1].fixture)).await;
    let process = with_fallback(&silent, &good, &[]).await;

    let (mut starts, mut ticks, mut most_probes, mut hanging) = (Vec::new(), interval(EVERY), 0, None);
    for number in 0..STARTS {
        ticks.tick().await;
        let request = process.origin.start(&json!("a"));
        starts.push(tokio::spawn(async move {
            let began = Instant::now();
            // Refused starts have no 200.
            let response = open(request).await;
            let token = timeout(SOON.saturating_sub(began.elapsed()), first_events(response, 1)).await;
            token.is_ok_and(|events| !events.is_empty()).then(|| began.elapsed())
        }));
        if number > FIRST + 2 {
            most_probes = most_probes.max(silent.open() - hanging.unwrap_or_default());
        } else if number > FIRST {
            // The first probe comes when the first cool-down is over, after two seconds.
            hanging.get_or_insert_with(|| silent.open());
        }
    }
    let mut times = Vec::new();
    for start in starts {
        times.push(start.await.expect("no start is refused"));
    }
    let (first, others) = times.split_at(FIRST);
    assert!(others.iter().all(|time| time.is_some_and(|time| time <= SOON)), "{times:?}");
    assert!(first[0].is_none(), "the first one waits: {times:?}");
    assert!(most_probes <= 1, "{most_probes} probes at once");
    let calls = silent.requests().len();
    assert!(calls <= FIRST + 3, "{calls} calls of the silent provider");
    println!("first tokens after {times:?}; {calls} calls of the silent provider");

    let log = process.log();
    let lines = log.lines().filter(|line| line.contains("the model isn't asked for a while")).count();
    assert!((2..=3).contains(&lines), "one for each cool-down: {log}");
    silent.answers(Answer::text(OPENAI.fixture));
    let back = async {
        loop {
            let all = events(open(process.origin.start(&json!("a"))).await).await;
            assert_eq!(terminal(&all).0, "done");
            let log = process.log();
            if log.contains("the model answers again") {
                break log;
            }
            sleep(EVERY).await;
        }
    };
    let log = timeout(BACK, back).await.expect("it is asked again");
    assert!(log.contains(GOOD));
    let (before, answered) = (good.requests().len(), silent.requests().len());
    terminal(&events(open(process.origin.start(&json!("a"))).await).await);
    assert_eq!((good.requests().len(), silent.requests().len()), (before, answered + 1), "it is the preferred one");
}
