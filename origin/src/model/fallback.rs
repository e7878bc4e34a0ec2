//! Several models, in order of preference: the next one is called where one gives no first token.

use std::{sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt};
use tokio::time::{Instant, timeout};

use super::{Model, ModelError, Token, Tokens};

/// Models in order of preference. Another model is called only before an answer's first token: after it the reader has a
/// beginning that another model would not continue.
pub struct Fallback {
    models: Vec<Arc<dyn Model>>,
    first_token_timeout: Duration,
}

/// An answer that has begun.
pub struct Answer {
    model: Arc<dyn Model>,
    called: Instant,
    first: Option<Token>,
    tokens: Tokens,
}

impl Fallback {
    /// These models. Each has `first_token_timeout` from its call to its first text.
    pub fn new(models: Vec<Arc<dyn Model>>, first_token_timeout: Duration) -> Self {
        Self { models, first_token_timeout }
    }

    /// How many generations they run at once in all; `None` where one of them has no such limit.
    pub fn concurrency(&self) -> Option<usize> {
        self.models.iter().map(|model| model.concurrency()).sum()
    }

    /// The answer of the first model that gives one: some text, or a good end without any. Calls `failed` for each model that
    /// gives none. After any failure the next model is called: a prompt that one refuses, or that is too long for it, may suit
    /// another. No prompt is cut to fit. Dropping the future cancels the model that was called last.
    ///
    /// # Errors
    /// All models failed: the last retryable failure, else the last one.
    pub async fn begin(&self, prompt: &str, mut failed: impl FnMut(&str, &ModelError)) -> Result<Answer, ModelError> {
        let mut told: Option<ModelError> = None;
        for model in &self.models {
            let called = Instant::now();
            let mut tokens = model.generate(prompt);
            let first = timeout(self.first_token_timeout, next(&mut tokens)).await;
            match first.unwrap_or(Err(ModelError::FirstTokenTimeout)) {
                Ok(first) => return Ok(Answer { model: model.clone(), called, first: Some(first), tokens }),
                Err(error) => {
                    failed(model.name(), &error);
                    if error.retryable() || !told.as_ref().is_some_and(ModelError::retryable) {
                        told = Some(error);
                    }
                }
            }
        }
        Err(told.unwrap_or(ModelError::Overloaded(None)))
    }
}

impl Answer {
    /// The name of the model that gives it.
    pub fn model(&self) -> &str {
        self.model.name()
    }

    /// When that model was called.
    pub fn called(&self) -> Instant {
        self.called
    }

    /// Waits for an item, and returns all that are ready, at most so many. Nothing follows an end or a failure.
    pub async fn ready(&mut self, most: usize) -> Vec<Result<Token, ModelError>> {
        let mut ready = vec![self.next().await];
        while ready.len() < most
            && let Some(Ok(Token::Text(_))) = ready.last()
            && let Some(item) = self.next().now_or_never()
        {
            ready.push(item);
        }
        ready
    }

    /// The next text, never an empty one, or the end.
    ///
    /// # Errors
    /// The model failed, or its answer has no end.
    pub async fn next(&mut self) -> Result<Token, ModelError> {
        match self.first.take() {
            Some(first) => Ok(first),
            None => next(&mut self.tokens).await,
        }
    }
}

async fn next(tokens: &mut Tokens) -> Result<Token, ModelError> {
    loop {
        match tokens.next().await {
            Some(Ok(Token::Text(text))) if text.is_empty() => {}
            Some(Ok(Token::Alive)) => {}
            Some(token) => return token,
            None => return Err(ModelError::BrokeOff("its answer stopped without an end".into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures::stream;

    use super::*;
    use crate::stream::Finish;

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

        fn generate(&self, _: &str) -> Tokens {
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
        let answer = models.begin("", |model, _| passed.lock().unwrap().push(model.to_owned())).await;
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
        let mut answer = models.begin("", |_, _| {}).await.unwrap();
        assert_eq!(answer.next().await, Ok(Token::Text("a".into())));
        assert_eq!(answer.next().await, Ok(Token::Text("b".into())));
        assert_eq!(answer.next().await, Err(failure));
    }

    #[tokio::test]
    async fn a_good_end_without_text_is_an_answer() {
        let models = models(vec![Says("terse", vec![Some(Ok(end()))], None), Says("unasked", vec![text("a")], None)]);
        let mut answer = models.begin("", |_, _| {}).await.unwrap();
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
        let room = |rooms: &[Option<usize>]| {
            models(rooms.iter().map(|room| Says("a", Vec::new(), *room)).collect()).concurrency()
        };
        assert_eq!(room(&[Some(8), Some(4)]), Some(12));
        assert_eq!(room(&[Some(8), None]), None);
    }
}
