//! The Workers runtime: this file and its folder alone know it.
//!
//! An answer's body never crosses into wasm: a response gets the very stream that the origin's answer has, and the
//! runtime pumps it natively. Nor does a conversation: it stays on JavaScript's side, for as many origins as are asked.

mod runtime;

use crate::config::{Config, Origin};
use crate::failover::{self, AnswerHead, HEADERS_DEADLINE, Plan, Refusal, ToldProblem, Worth};
use crate::headers::HeaderList;
use crate::health::{self, Health, Look, Looks, Report, Status};
use crate::policy::{self, Admission, Caller, LIMIT_PERIOD};
use crate::route::{self, Api, Call, Chat, Input, RequestHead, Start, Url};
use crate::upstream::{self, OriginRequest, RequestHeaders};
use futures::future::join_all;
use headwater_protocol::header::{JSON, PROBLEM, PROBLEM_KIND};
use headwater_protocol::openai::{ErrorBody, SHOULD_RETRY};
use headwater_protocol::{IdempotencyKey, Kind, MAX_BODY_BYTES, MAX_CONVERSATION_BYTES, Problem, Variables};
use js_sys::{Date, Reflect, Uint8Array};
use runtime::{Failure, Limiter, keep_bounded, random_uuid, read_bounded, respond, respond_text, send, sleep};
use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;
use wasm_bindgen::prelude::*;
use web_sys::{ReadableStream, Request, Response};
use worker::{Context, Env, console_error, event};

/// The rate limit's binding in wrangler.toml.
const LIMITER: &str = "START_LIMIT";

/// How long a prompt's variables may take.
const BODY_DEADLINE: Duration = Duration::from_secs(10);
/// How long a conversation may take: 1 MiB is much for a phone.
const CONVERSATION_DEADLINE: Duration = Duration::from_secs(30);

/// Answers one request.
#[event(fetch)]
async fn handle(request: Request, env: Env, _context: Context) -> Result<Response, Infallible> {
    let url = request.url();
    let url = Url::of(&url);
    let request_headers = request.headers();
    // A crossing for each look: to take all headers over at once, as JSON, was measured to cost more than ten of them.
    let header = |name: &str| request_headers.get(name).ok().flatten();
    let edge = Edge::of(&env);
    let caller = Caller::of(&edge.config, &url, &header);
    let api = Api::of(url.path);
    let exchange = Exchange { edge: &edge, caller: &caller, header: &header, request: &request, url, api };
    let answer = exchange.answer().await;
    Ok(answer.or_else(|problem| exchange.refuse(&problem)).unwrap_or_else(|_| runtime::bare_failure()))
}

/// What outlives a request: parsed at the first one, kept as long as the instance.
struct Edge {
    config: Config,
    limiter: Option<Limiter>,
    looks: RefCell<Looks>,
}

impl Edge {
    fn of(env: &Env) -> Rc<Self> {
        thread_local! {
            static EDGE: RefCell<Option<Rc<Edge>>> = const { RefCell::new(None) };
        }
        if let Some(edge) = EDGE.with_borrow(Clone::clone) {
            return edge;
        }
        let binding = |name: &str| Reflect::get(env, &name.into()).ok();
        let limiter = binding(LIMITER).filter(JsValue::is_object).map(JsCast::unchecked_into);
        let config = Config::parse(|name| binding(name)?.as_string(), limiter.is_some());
        for slip in &config.slips {
            console_error!("settings: {slip}");
        }
        let edge = Rc::new(Self { config, limiter, looks: RefCell::default() });
        EDGE.set(Some(Rc::clone(&edge)));
        edge
    }
}

/// What origins are asked.
struct Question<'a> {
    plan: Plan<'a>,
    request: OriginRequest,
    /// The request's body, where the edge doesn't read it.
    kept: Option<Uint8Array>,
}

impl<'a> Question<'a> {
    fn of(plan: Plan<'a>, request: OriginRequest) -> Self {
        Self { plan, request, kept: None }
    }
}

/// One request on its way.
struct Exchange<'a> {
    edge: &'a Edge,
    caller: &'a Caller,
    header: &'a dyn Fn(&str) -> Option<String>,
    request: &'a Request,
    url: Url<'a>,
    api: Option<Api>,
}

impl Exchange<'_> {
    async fn answer(&self) -> Result<Response, Problem> {
        let head = RequestHead { method: &self.request.method(), url: self.url, header: self.header };
        let config = &self.edge.config;
        // Before anything else is looked at. A preflight (`OPTIONS`) comes without a key, and spends nothing.
        if self.api.is_some() && head.method != "OPTIONS" {
            policy::may_chat(config, self.caller)?;
        }
        let question = match Call::parse(&head)? {
            Call::Start(start) => self.start(start).await?,
            Call::Chat(chat) => self.chat(&chat).await?,
            Call::Models(path) => Question::of(Plan::models(config)?, OriginRequest::models(self.headers(), path)),
            Call::Follow(stream, cursor) => {
                let request = OriginRequest::follow(self.headers(), &stream, cursor.as_ref());
                Question::of(Plan::stream(config, &stream)?, request)
            }
            Call::Stop(stream) => {
                Question::of(Plan::stream(config, &stream)?, OriginRequest::stop(self.headers(), &stream))
            }
            Call::Health => return self.health().await,
            Call::Options(allow) => {
                let asked = (self.header)("access-control-request-headers");
                return respond(204, &self.caller.cors.options(allow, asked.as_deref()), None);
            }
        };
        self.forward(&question).await
    }

    async fn start(&self, start: Start) -> Result<Question<'_>, Problem> {
        let config = &self.edge.config;
        if start.is_bare && self.is_http_10() {
            return Err(Problem::bare_over_http_10());
        }
        let plan = Plan::start(config, start.key.as_ref(), start.cursor.as_ref())?;
        let admission = if plan.may_begin() { policy::may_start(config, self.caller)? } else { Admission::Free };
        let variables = match start.input {
            Input::Query(variables) => variables,
            Input::Body => match self.read_body().await.and_then(|body| route::read_variables(&body, &start.prompt)) {
                // With a cursor, the rest of the request is ignored.
                Err(_) if start.cursor.is_some() => Variables::default(),
                variables => variables?,
            },
        };
        self.count(admission).await?;
        let key = start.key.or_else(|| key_for(&plan));
        let request =
            OriginRequest::start(self.headers(), &start.prompt, &variables, start.cursor.as_ref(), key.as_ref());
        Ok(Question::of(plan, request))
    }

    async fn chat(&self, chat: &Chat) -> Result<Question<'_>, Problem> {
        let config = &self.edge.config;
        if chat.is_bare && self.is_http_10() {
            return Err(Problem::bare_over_http_10());
        }
        let plan = Plan::chat(config, chat.api, chat.key.as_ref())?;
        // Before there is room for the body: whoever is over the limit gets none.
        self.count(policy::may_start(config, self.caller)?).await?;
        // Not piped, though with one origin it could be: so its size and its time have bounds before an origin is troubled.
        let kept = match self.request.body() {
            None => None,
            Some(body) => {
                let kept = keep_bounded(&body, chat.max_bytes, CONVERSATION_DEADLINE).await;
                Some(kept.map_err(|error| error.problem(MAX_CONVERSATION_BYTES))?)
            }
        };
        let attempt = if chat.key.is_none() { key_for(&plan) } else { None };
        let request = OriginRequest::chat(self.headers(), chat, attempt.as_ref());
        Ok(Question { plan, request, kept })
    }

    /// The client speaks HTTP/1.0, where a body that was broken off looks whole. Production says so in `request.cf`; a
    /// `workerd serve` of one's own, which answers in HTTP/1.0 too, doesn't.
    fn is_http_10(&self) -> bool {
        let cf = Reflect::get(self.request, &"cf".into()).unwrap_or_default();
        let protocol = Reflect::get(&cf, &"httpProtocol".into()).ok().and_then(|text| text.as_string());
        protocol.as_deref() == Some("HTTP/1.0")
    }

    async fn read_body(&self) -> Result<Vec<u8>, Problem> {
        let body = read_bounded(self.request.body(), Some(BODY_DEADLINE)).await;
        body.map_err(|error| error.problem(MAX_BODY_BYTES))
    }

    async fn count(&self, admission: Admission) -> Result<(), Problem> {
        let Admission::Counted(key) = admission else { return Ok(()) };
        let limiter = self.edge.limiter.as_ref().ok_or_else(Problem::no_rate_limit)?;
        match runtime::has_room(limiter, &key).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Problem::too_many_starts(LIMIT_PERIOD)),
            Err(error) => Err(runtime::broken(&error)),
        }
    }

    fn headers(&self) -> RequestHeaders {
        RequestHeaders::of(self.api, self.caller.id.as_ref(), self.header)
    }

    /// Asks the plan's origins in turn, until one gives an answer that can be passed on.
    async fn forward(&self, question: &Question<'_>) -> Result<Response, Problem> {
        let mut origins = question.plan.origins.iter().peekable();
        let mut refused: Option<Problem> = None;
        while let Some(origin) = origins.next() {
            let is_last = origins.peek().is_none();
            match self.attempt(question, origin, is_last).await {
                Ok(response) => return Ok(response),
                Err(Refusal::Final(problem)) => return Err(problem),
                // An origin without room is there, whatever becomes of the others.
                Err(Refusal::Next(_)) if refused.as_ref().is_some_and(|known| known.kind() == Kind::Overloaded) => {}
                Err(Refusal::Next(problem)) => refused = Some(problem),
            }
        }
        Err(refused.unwrap_or_else(Problem::no_such_stream))
    }

    async fn attempt(&self, question: &Question<'_>, origin: &Origin, is_last: bool) -> Result<Response, Refusal> {
        let Question { plan, request, kept } = question;
        let sent = send(&self.edge.config, origin, request, kept.as_ref(), HEADERS_DEADLINE).await;
        // The deadline ends with this attempt: a body that is piped may take as long as it takes.
        let (answer, _deadline) = sent.map_err(|failure| match failure {
            Failure::Unreached => plan.unreached(),
            Failure::TimedOut => plan.timed_out(),
        })?;
        let answer_headers = answer.headers();
        let header = |name: &str| answer_headers.get(name).ok().flatten();
        let mut headers = upstream::response_headers(self.api, origin, &header);
        self.caller.cors.mark(&mut headers);
        let content_encoding = header("content-encoding");
        let head = AnswerHead {
            status: answer.status(),
            content_type: headers.get("content-type"),
            content_encoding: content_encoding.as_deref(),
            problem: headers.get(PROBLEM_KIND),
        };
        let body = answer.body();
        match plan.judge(&head) {
            Ok(Worth::PipeAsLast) if !is_last => {
                give_up(body);
                Err(Refusal::Next(Problem::overloaded()))
            }
            Ok(Worth::Pipe | Worth::PipeAsLast) => {
                respond(head.status, &headers, body.as_ref()).map_err(Refusal::Final)
            }
            Ok(Worth::Retell) => {
                let document = read_bounded(body, None).await.map_err(|_| plan.unreached())?;
                let told = ToldProblem::read(&document).ok_or_else(|| Refusal::Next(Problem::unusable_answer()))?;
                if told.is_overloaded() && !is_last {
                    return Err(Refusal::Next(Problem::overloaded()));
                }
                respond_text(head.status, &headers, &told.to_json(head.status, self.url.path)).map_err(Refusal::Final)
            }
            Err(refusal) => {
                console_error!("origin: {} answered {}, which is of no use", origin.name, head.status);
                give_up(body);
                Err(refusal)
            }
        }
    }

    /// Answers with a problem.
    fn refuse(&self, problem: &Problem) -> Result<Response, Problem> {
        let mut headers = HeaderList::default();
        self.caller.cors.mark(&mut headers);
        headers.append("cache-control", "no-store");
        if problem.kind() == Kind::Unauthorised {
            headers.append("www-authenticate", "Bearer");
        }
        if let Some(allow) = problem.allow() {
            headers.append("allow", allow);
        }
        if let Some(seconds) = problem.retry_after_s() {
            headers.append("retry-after", &seconds.to_string());
        }
        if self.api.is_some() {
            headers.append(PROBLEM_KIND, problem.kind().name());
        }
        let document = if self.api == Some(Api::OpenAi) {
            headers.append("content-type", JSON);
            headers.append(SHOULD_RETRY, if problem.retryable() { "true" } else { "false" });
            ErrorBody::of(problem).to_json()
        } else {
            headers.append("content-type", PROBLEM);
            problem.document(self.url.path)
        };
        respond_text(problem.status(), &headers, &document)
    }

    async fn health(&self) -> Result<Response, Problem> {
        let report = loop {
            let look = self.edge.looks.borrow_mut().look(Date::now());
            match look {
                Look::Tell(report) => break report,
                Look::Ask => break self.ask_all().await,
                Look::Wait => sleep(health::WAIT).await,
            }
        };
        let mut headers = HeaderList::default();
        headers.append("content-type", JSON);
        headers.append("cache-control", "no-store");
        self.caller.cors.mark(&mut headers);
        respond_text(report.status_code, &headers, &report.document)
    }

    /// Asks all origins at once how they are.
    async fn ask_all(&self) -> Report {
        let config = &self.edge.config;
        let request = OriginRequest::health(RequestHeaders::of(None, None, self.header));
        let checks = failover::own_origins(config)
            .map(async |origin| (origin.name.as_str(), check_health(config, origin, &request).await));
        let report = Health::of(config, join_all(checks).await).report();
        self.edge.looks.borrow_mut().keep(report.clone(), Date::now());
        report
    }
}

/// A key for a start that has none, if more than one origin may be asked.
fn key_for(plan: &Plan<'_>) -> Option<IdempotencyKey> {
    plan.wants_key().then(|| random_uuid().parse().ok()).flatten()
}

/// Nobody reads it: the origin can stop whatever it does for it.
fn give_up(body: Option<ReadableStream>) {
    if let Some(body) = body {
        let _ = body.cancel();
    }
}

async fn check_health(config: &Config, origin: &Origin, request: &OriginRequest) -> Status {
    let Ok((answer, _deadline)) = send(config, origin, request, None, health::DEADLINE).await else {
        return Status::Down;
    };
    let document = read_bounded(answer.body(), None).await;
    document.map_or(Status::Down, |document| Status::of_origin(answer.status(), &document))
}
