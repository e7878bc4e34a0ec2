//! Health as starts see it, in paused time: through [`Fallback`], with models that can be changed on the way.

mod fake;

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::time::sleep;

use self::fake::{Fake, Says};
use super::*;
use crate::model::{
    Model, Request,
    fallback::{Answer, Fallback},
};

const TIMEOUT: Duration = Duration::from_secs(110);
const SECOND: Duration = Duration::from_secs(1);

fn models<const N: usize>(models: [&Arc<Fake>; N]) -> Arc<Fallback> {
    let models = models.into_iter().map(|model| model.clone() as Arc<dyn Model>);
    Arc::new(Fallback::new(models.collect(), TIMEOUT))
}

async fn answer(models: &Fallback) -> Result<Answer, ModelError> {
    models.begin(&Request::prompt("a"), |_, _| {}).await
}

/// The name of the model that answers.
async fn by(models: &Fallback) -> Result<String, ModelError> {
    answer(models).await.map(|answer| answer.model().to_owned())
}

/// The same, on its own.
fn start(models: &Arc<Fallback>) -> tokio::task::JoinHandle<Result<String, ModelError>> {
    let models = models.clone();
    tokio::spawn(async move { by(&models).await })
}

fn fails(error: ModelError) -> Says {
    Says::Fails(error, 0)
}

fn bad() -> ModelError {
    ModelError::BadAnswer("500".into())
}

/// The seconds at which the model was called, with starts every tenth of a second.
async fn called(models: &Arc<Fallback>, model: &Fake, seconds: u64) -> Vec<u64> {
    let began = Instant::now();
    for _ in 0..seconds * 10 {
        start(models);
        sleep(SECOND / 10).await;
    }
    let calls = model.calls.lock().unwrap();
    calls.iter().filter(|call| **call >= began).map(|call| (*call - began).as_secs()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_model_that_failed_is_probed_after_one_second_and_then_after_twice_as_long_up_to_a_minute() {
    for error in [
        bad(),
        ModelError::BrokeOff("x".into()),
        ModelError::Misconfigured("x".into()),
        ModelError::RateLimited(None),
        ModelError::Overloaded(None),
        ModelError::Overloaded(Some(SECOND / 2)),
    ] {
        let (first, second) = (Fake::new("first", fails(error)), Fake::new("second", Says::Text(10)));
        let models = models([&first, &second]);
        assert_eq!(called(&models, &first, 200).await, [0, 1, 3, 7, 15, 31, 63, 123, 183]);
        first.now(Says::Text(0));
        sleep(60 * SECOND).await;
        assert_eq!(by(&models).await.unwrap(), "first");
        assert_eq!(by(&models).await.unwrap(), "first", "it is well");
        sleep(SECOND).await;
        first.now(fails(bad()));
        assert_eq!(called(&models, &first, 4).await, [0, 1, 3], "and begins anew");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_the_prompts_fault_cools_nothing_down() {
    for error in [ModelError::Refused("no".into()), ModelError::TooLong("9".into())] {
        let (first, second) = (Fake::new("first", fails(error)), Fake::new("second", Says::Text(10)));
        let models = models([&first, &second]);
        assert_eq!(called(&models, &first, 1).await.len(), 10);
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_the_provider_names_is_kept_and_what_is_left_of_it_is_told() {
    let limited = |seconds| ModelError::RateLimited(Some(seconds * SECOND));
    let (first, second) = (Fake::new("first", fails(limited(3600))), Fake::new("second", Says::Text(0)));
    let models = models([&first, &second]);
    assert_eq!(by(&models).await.unwrap(), "second");
    second.now(fails(ModelError::Refused("no".into())));
    sleep(600 * SECOND).await;
    assert_eq!(by(&models).await.unwrap_err(), limited(3000));
    assert_eq!(first.calls(), 1);
    sleep(2999 * SECOND).await;
    assert_eq!(by(&models).await.unwrap_err(), limited(1));
    first.now(Says::Text(0));
    sleep(SECOND).await;
    assert_eq!(by(&models).await.unwrap(), "first");
}

#[tokio::test(start_paused = true)]
async fn many_calls_that_fail_together_count_once_and_the_longest_wait_counts() {
    let (first, second) = (Fake::new("first", Says::Fails(bad(), 500)), Fake::new("second", Says::Text(0)));
    let models = models([&first, &second]);
    let mut starts: Vec<_> = (0..20).map(|_| start(&models)).collect();
    sleep(SECOND / 10).await;
    first.now(Says::Fails(ModelError::RateLimited(Some(10 * SECOND)), 500));
    starts.push(start(&models));
    for started in starts {
        assert_eq!(started.await.unwrap().unwrap(), "second");
    }
    assert_eq!(first.calls(), 21);
    first.now(fails(bad()));
    assert_eq!(called(&models, &first, 20).await, [10, 12, 16], "at the wait's end, then twice the first cool-down");
}

#[tokio::test(start_paused = true)]
async fn fault_30_behind_a_silent_model_starts_go_on_at_the_next() {
    let (silent, good) = (Fake::new("silent", Says::Nothing), Fake::new("good", Says::Text(300)));
    let models = models([&silent, &good]);
    let (slow, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    for number in 0..300 {
        let (models, slow, most, silent) = (models.clone(), slow.clone(), most.clone(), silent.clone());
        tokio::spawn(async move {
            let began = Instant::now();
            // Reads for a second more.
            let answer = answer(&models).await.unwrap();
            if began.elapsed() > SECOND + SECOND / 2 {
                slow.fetch_add(1, Relaxed);
            }
            most.fetch_max(silent.open(), Relaxed);
            sleep(SECOND).await;
            assert_eq!(answer.model(), "good", "start {number}");
        });
        sleep(SECOND / 5).await;
    }
    sleep(2 * TIMEOUT).await;
    assert!(slow.load(Relaxed) <= 6, "{} starts had to wait", slow.load(Relaxed));
    assert!(most.load(Relaxed) <= 6, "{} calls hung at once", most.load(Relaxed));
    assert!(silent.calls() <= 6 + 6, "{} calls", silent.calls());
    assert_eq!((silent.open(), good.open()), (0, 0));
    silent.now(Says::Text(300));
    assert_eq!(by(&models).await.unwrap(), "silent");
}

#[tokio::test(start_paused = true)]
async fn a_late_first_token_proves_a_silent_model_slow_and_it_isnt_doubted_for_that_again() {
    for says in [Says::Text(3_000), Says::Thinks(1_500, 2)] {
        let (slow, second) = (Fake::new("slow", says), Fake::new("second", Says::Text(0)));
        let models = models([&slow, &second]);
        let first = start(&models);
        sleep(SECOND + SECOND / 10).await;
        assert_eq!(by(&models).await.unwrap(), "second", "it is doubted");
        assert_eq!(first.await.unwrap().unwrap(), "slow", "its call goes on");
        for _ in 0..10 {
            let two = tokio::join!(by(&models), by(&models));
            assert_eq!((two.0.unwrap(), two.1.unwrap()), ("slow".into(), "slow".into()));
        }
        assert_eq!(second.calls(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_model_once_took_is_forgotten_in_time() {
    let (first, second) = (Fake::new("first", Says::Text(10_000)), Fake::new("second", Says::Text(0)));
    let models = models([&first, &second]);
    by(&models).await.unwrap();
    first.now(Says::Text(100));
    for _ in 0..150 {
        assert_eq!(by(&models).await.unwrap(), "first");
    }
    first.now(Says::Nothing);
    let hanging = start(&models);
    sleep(SECOND + SECOND / 2).await;
    assert_eq!(by(&models).await.unwrap(), "second");
    hanging.abort();
}

#[tokio::test(start_paused = true)]
async fn a_slow_model_comes_back_from_an_outage_though_its_probes_are_short() {
    let (slow, second) = (Fake::new("slow", fails(bad())), Fake::new("second", Says::Text(0)));
    let models = models([&slow, &second]);
    assert_eq!(by(&models).await.unwrap(), "second");
    slow.now(Says::Text(20_000));
    let began = Instant::now();
    loop {
        let asked = Instant::now();
        let name = by(&models).await.unwrap();
        if name == "slow" {
            break;
        }
        assert!(asked.elapsed() <= SECOND, "no start waits for longer than a probe");
        assert!(slow.open() <= 1, "one probe at a time");
        sleep(SECOND / 10).await;
    }
    assert!(began.elapsed() < 120 * SECOND, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_late_first_token_of_an_old_call_ends_no_rate_limit() {
    let (first, second) = (Fake::new("first", Says::Text(3_000)), Fake::new("second", Says::Text(0)));
    let models = models([&first, &second]);
    let old = start(&models);
    sleep(SECOND / 2).await;
    first.now(fails(ModelError::RateLimited(Some(60 * SECOND))));
    assert_eq!(by(&models).await.unwrap(), "second");
    assert_eq!(old.await.unwrap().unwrap(), "first");
    first.now(Says::Text(0));
    assert_eq!(by(&models).await.unwrap(), "second");
    sleep(58 * SECOND).await;
    assert_eq!(by(&models).await.unwrap(), "first");
}

#[tokio::test(start_paused = true)]
async fn calls_from_before_a_recovery_begin_no_other_cool_down() {
    let (first, second) = (Fake::new("first", Says::Nothing), Fake::new("second", Says::Text(0)));
    let models = models([&first, &second]);
    let hanging = start(&models);
    sleep(3 * SECOND).await;
    first.now(Says::Text(0));
    assert_eq!(by(&models).await.unwrap(), "first");
    assert_eq!(hanging.await.unwrap().unwrap(), "second", "it has timed out");
    assert_eq!(by(&models).await.unwrap(), "first");
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_its_reader_leaves_is_no_verdict_and_frees_its_place() {
    let (first, second) = (Fake::new("first", fails(bad())), Fake::new("second", Says::Text(0)));
    let models = models([&first, &second]);
    by(&models).await.unwrap();
    first.now(Says::Text(500));
    sleep(SECOND).await;
    let probe = start(&models);
    sleep(SECOND / 10).await;
    assert_eq!(by(&models).await.unwrap(), "second", "one probe at a time");
    probe.abort();
    assert!(probe.await.unwrap_err().is_cancelled());
    assert_eq!(by(&models).await.unwrap(), "first", "the next start probes, at once");
    assert_eq!(first.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn models_that_all_cool_down_are_called_in_order_and_one_alone_never_cools_down() {
    let (first, second) = (Fake::new("first", fails(bad())), Fake::new("second", fails(ModelError::Overloaded(None))));
    let both = models([&first, &second]);
    for calls in 1..5 {
        assert_eq!(by(&both).await.unwrap_err(), ModelError::Overloaded(None));
        assert_eq!((first.calls(), second.calls()), (calls, calls));
    }
    second.now(Says::Text(0));
    assert_eq!(by(&both).await.unwrap(), "second");
    assert_eq!(first.calls(), 5);
    assert_eq!(by(&both).await.unwrap(), "second");
    assert_eq!(first.calls(), 5, "the second is well, so the first cools down");

    let alone = models([&first]);
    for _ in 0..5 {
        assert_eq!(by(&alone).await.unwrap_err(), bad());
    }
    assert_eq!(first.calls(), 10);
    assert_eq!(alone.cooling_down().collect::<Vec<_>>(), [("first", false)]);
}

#[tokio::test(start_paused = true)]
async fn a_silent_model_is_not_waited_for_while_the_other_only_stumbled() {
    let (silent, flaky) = (Fake::new("silent", Says::Nothing), Fake::new("flaky", fails(bad())));
    let models = models([&silent, &flaky]);
    let hanging = start(&models);
    sleep(SECOND + SECOND / 10).await;
    let stumbled = start(&models);
    sleep(SECOND / 10).await;
    assert!(models.cooling_down().all(|(_, cools_down)| cools_down));
    flaky.now(Says::Text(0));
    let began = Instant::now();
    assert_eq!(by(&models).await.unwrap(), "flaky");
    assert!(began.elapsed() <= SECOND, "{:?}", began.elapsed());
    hanging.abort();
    assert_eq!(stumbled.await.unwrap().unwrap_err(), ModelError::FirstTokenTimeout, "no other is left to it");
}

#[tokio::test(start_paused = true)]
async fn comments_keep_a_call_alive_and_make_no_model_well() {
    // A gateway that sends comments, whatever its model does.
    let (first, second) = (Fake::new("first", Says::Comments(10_000, 30)), Fake::new("second", Says::Text(10)));
    let models = models([&first, &second]);
    let waiting = start(&models);
    sleep(SECOND * 3 / 2).await;
    for _ in 0..600 {
        assert_eq!(by(&models).await.unwrap(), "second");
        sleep(SECOND / 10).await;
    }
    assert!(first.calls() < 10, "one probe at a time: {}", first.calls());
    assert_eq!(waiting.await.unwrap().unwrap(), "first", "after five minutes, longer than the first-token timeout");
}
