use std::sync::Mutex;

use futures::stream;

use super::*;
use crate::{
    prompt::{Conversation, Options},
    stream::Finish,
};

const PATIENCE: Duration = Duration::from_secs(120);

/// Says these things, then nothing more. `None` is silence.
struct Says(&'static str, Vec<Option<Result<Token, ModelError>>>, Option<usize>);

impl Model for Says {
    fn name(&self) -> &str {
        self.0
    }

    fn concurrency(&self) -> Option<usize> {
        self.2
    }

    fn generate(&self, _: &Conversation, _: &Options) -> Tokens {
        let steps = stream::iter(self.1.clone());
        steps.then(async |step| if let Some(item) = step { item } else { std::future::pending().await }).boxed()
    }
}

fn text(text: &str) -> Option<Result<Token, ModelError>> {
    Some(Ok(Token::Text(text.into())))
}

fn end() -> Token {
    Token::End { finish: Finish::Stop, usage: None }
}

fn models(models: Vec<Says>) -> Fallback {
    Fallback::new(models.into_iter().map(|model| Arc::new(model) as Arc<dyn Model>).collect(), PATIENCE)
}

/// The model that answered or the error, and the models that were passed over.
async fn begin(models: &Fallback) -> (Result<String, ModelError>, Vec<String>) {
    let passed = Mutex::new(Vec::new());
    let answer = models.begin(&Request::prompt("a"), |model, _| passed.lock().unwrap().push(model.to_owned())).await;
    (answer.map(|answer| answer.model().to_owned()), passed.into_inner().unwrap())
}

#[tokio::test(start_paused = true)]
async fn the_first_model_with_a_text_answers_and_the_others_are_told() {
    let models = models(vec![
        Says("silent", vec![text(""), None], None),
        Says("refusing", vec![Some(Err(ModelError::Refused("no".into())))], None),
        Says("short", vec![Some(Err(ModelError::TooLong("9 tokens".into())))], None),
        Says("broken", vec![text("")], None),
        Says("good", vec![text(""), text("a"), Some(Ok(end()))], None),
        Says("unasked", vec![text("b")], None),
    ]);
    let began = Instant::now();
    let (answer, passed) = begin(&models).await;
    assert_eq!(answer.unwrap(), "good");
    assert_eq!(passed, ["silent", "refusing", "short", "broken"]);
    assert_eq!(began.elapsed(), PATIENCE, "each has its own time");
}

#[tokio::test]
async fn an_answer_goes_on_with_its_own_model_and_ends_with_it() {
    let failure = ModelError::BrokeOff("x".into());
    let models = models(vec![Says("one", vec![text("a"), text(""), text("b"), Some(Err(failure.clone()))], None)]);
    let mut answer = models.begin(&Request::prompt("a"), |_, _| {}).await.unwrap();
    assert_eq!(answer.next().await, Ok(Token::Text("a".into())));
    assert_eq!(answer.next().await, Ok(Token::Alive), "an empty text is no text, but a sign of life");
    assert_eq!(answer.next().await, Ok(Token::Text("b".into())));
    assert_eq!(answer.next().await, Err(failure));
}

#[tokio::test]
async fn a_good_end_without_text_is_an_answer() {
    let models = models(vec![Says("terse", vec![Some(Ok(end()))], None), Says("unasked", vec![text("a")], None)]);
    let mut answer = models.begin(&Request::prompt("a"), |_, _| {}).await.unwrap();
    assert_eq!(answer.model(), "terse");
    assert_eq!(answer.next().await, Ok(end()));
}

#[tokio::test]
async fn of_all_failures_the_last_that_may_pass_is_told() {
    let limited = ModelError::RateLimited(Some(Duration::from_secs(7)));
    let (overloaded, refused) = (ModelError::Overloaded(None), ModelError::Refused("no".into()));
    let too_long = ModelError::TooLong("9 tokens".into());
    for (errors, told) in [
        (vec![&limited, &refused], &limited),
        (vec![&refused, &limited], &limited),
        (vec![&limited, &overloaded, &refused], &overloaded),
        (vec![&ModelError::Misconfigured("the key".into()), &refused], &refused),
        (vec![&too_long, &overloaded], &overloaded),
        (vec![&refused, &too_long], &too_long),
    ] {
        let failing = |error: &&ModelError| Says("failing", vec![Some(Err((*error).clone()))], None);
        assert_eq!(begin(&models(errors.iter().map(failing).collect())).await.0.unwrap_err(), *told);
    }
}

#[test]
fn together_they_have_the_room_of_all_unless_one_has_no_limit() {
    let room =
        |rooms: &[Option<usize>]| models(rooms.iter().map(|room| Says("a", Vec::new(), *room)).collect()).concurrency();
    assert_eq!(room(&[Some(8), Some(4)]), Some(12));
    assert_eq!(room(&[Some(8), None]), None);
}

/// An answer that stays open until it is dropped, of a model with so many places.
fn placed(name: &'static str, places: usize) -> Says {
    Says(name, vec![text("a"), None], Some(places))
}

#[tokio::test(start_paused = true)]
async fn a_full_model_is_passed_over_where_another_is_there_and_isnt_unwell_for_that() {
    let models = models(vec![placed("full", 1), Says("second", vec![text("b")], None)]);
    let held = models.begin(&Request::prompt("a"), |_, _| {}).await.unwrap();
    let mut full = Vec::new();
    let other =
        models.begin(&Request::prompt("a"), |model, passed| full.push(format!("{model} {passed:?}"))).await.unwrap();
    assert_eq!((other.model(), &*full.join(",")), ("second", "full Full"));
    drop(held);
    assert_eq!(begin(&models).await.0.unwrap(), "full");
}

#[tokio::test(start_paused = true)]
async fn the_last_model_that_can_be_called_is_waited_for_where_it_is_full() {
    let failing = Says("failing", vec![Some(Err(ModelError::BadAnswer("500".into())))], None);
    for (models, held) in [
        (models(vec![failing, placed("full", 2)]), 2),
        (models(vec![placed("full", 1), Says("refusing", vec![Some(Err(ModelError::Refused("no".into())))], None)]), 1),
    ] {
        let request = Request::prompt("a");
        let mut held = futures::future::join_all((0..held).map(|_| models.begin(&request, |_, _| {}))).await;
        let began = Instant::now();
        let waits =
            async { models.begin(&Request::prompt("a"), |_, _| {}).await.map(|answer| answer.model().to_owned()) };
        let leaves = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            drop(held.pop());
        };
        assert_eq!(tokio::join!(waits, leaves).0.unwrap(), "full");
        assert_eq!(began.elapsed(), Duration::from_secs(5));
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_model_is_waited_for_no_longer_than_for_a_first_token() {
    let models = models(vec![placed("full", 1)]);
    let _held = models.begin(&Request::prompt("a"), |_, _| {}).await.unwrap();
    let began = Instant::now();
    assert_eq!(begin(&models).await.0.unwrap_err(), ModelError::Overloaded(None));
    assert_eq!(began.elapsed(), PATIENCE);
}

#[tokio::test(start_paused = true)]
async fn a_named_model_is_asked_alone_and_not_waited_for_where_it_is_full() {
    let models = models(vec![Says("first", vec![text("a")], None), placed("second", 1)]);
    let named = Request { model: Some("second".into()), ..Request::prompt("a") };
    let held = models.begin(&named, |_, _| {}).await.unwrap();
    assert_eq!(held.model(), "second");
    let began = Instant::now();
    assert_eq!(models.begin(&named, |_, _| {}).await.err(), Some(ModelError::Overloaded(None)));
    assert_eq!(began.elapsed(), Duration::ZERO, "a wait would hold a slot that other models could use");
    drop(held);
    assert!(models.begin(&named, |_, _| {}).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_place_is_free_again_wherever_its_start_is_dropped() {
    let models = models(vec![Says("full", vec![None], Some(1)), Says("other", vec![None], Some(1))]);
    for _ in 0..3 {
        // Waiting for the first token of one, and for a place of the other.
        let request = Request::prompt("a");
        let starts = (0..3).map(|_| models.begin(&request, |_, _| {}));
        let all = timeout(Duration::from_millis(10), futures::future::join_all(starts)).await;
        assert!(all.is_err());
        assert!(models.members.iter().all(|member| member.places.as_ref().unwrap().available_permits() == 1));
    }
    let models = self::models(vec![placed("full", 1)]);
    drop(models.begin(&Request::prompt("a"), |_, _| {}).await.unwrap());
    assert_eq!(models.members[0].places.as_ref().unwrap().available_permits(), 1);
}

#[tokio::test(start_paused = true)]
async fn signs_of_life_keep_the_first_token_timeout_away_and_are_passed_on_together() {
    let every = Duration::from_millis(500);
    let thinks = stream::unfold(0, move |number| async move {
        tokio::time::sleep(every).await;
        Some((Ok(if number < 500 { Token::Alive } else { Token::Text("a".into()) }), number + 1))
    });
    let (mut thinks, began) = (thinks.boxed(), Instant::now());
    let mut call = Health::new("thinking", false).call(false).unwrap();
    assert_eq!(first(&mut thinks, &mut call, PATIENCE, true).await, Ok(Token::Text("a".into())));
    assert!(began.elapsed() > 2 * PATIENCE);

    let alive = || Some(Ok(Token::Alive));
    let said = vec![text("a"), alive(), text(""), text("b"), Some(Ok(end())), text("no more")];
    let models = models(vec![Says("one", said, None)]);
    let ready = models.begin(&Request::prompt("a"), |_, _| {}).await.unwrap().ready(32).await;
    let texts = [Token::Text("a".into()), Token::Alive, Token::Alive, Token::Text("b".into()), end()];
    assert_eq!(ready, texts.map(Ok));
}
