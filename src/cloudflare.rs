//! The Workers runtime: this file and its folder alone know it.
//!
//! An answer's body never crosses into wasm: a response gets the very stream that the origin's answer has, and the
//! runtime pumps it natively.

mod runtime;

use crate::config::{Config, Origin};
use crate::failover::{self, AnswerHead, HEADERS_DEADLINE, Plan, Refusal, ToldProblem, Worth};
use crate::headers::HeaderList;
use crate::health::{self, Health, Look, Looks, Report, Status};
use crate::policy::{self, Admission, Caller, LIMIT_PERIOD};
use crate::route::{self, Call, Input, RequestHead, Start, Url};
use crate::upstream::{self, OriginRequest};
use futures::future::join_all;
use headwater_protocol::header::{JSON, PROBLEM};
use headwater_protocol::{MAX_BODY_BYTES, Problem, Variables};
use js_sys::{Date, Reflect};
use runtime::{Failure, Limiter, ReadError, random_uuid, read_bounded, respond, respond_text, send, sleep};
use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;
use wasm_bindgen::prelude::*;
use web_sys::{Request, Response};
use worker::{Context, Env, console_error, event};

/// The rate limit's binding in wrangler.toml.
const LIMITER: &str = "START_LIMIT";

/// How long a start's body may take. The origin gives it as long.
const BODY_DEADLINE: Duration = Duration::from_secs(10);

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
    let exchange = Exchange { edge: &edge, caller: &caller, header: &header, request: &request, url };
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

/// One request on its way.
struct Exchange<'a> {
    edge: &'a Edge,
    caller: &'a Caller,
    header: &'a dyn Fn(&str) -> Option<String>,
    request: &'a Request,
    url: Url<'a>,
}

impl Exchange<'_> {
    async fn answer(&self) -> Result<Response, Problem> {
        let head = RequestHead { method: &self.request.method(), url: self.url, header: self.header };
        let config = &self.edge.config;
        match Call::parse(&head)? {
            Call::Start(start) => self.start(start).await,
            Call::Follow(stream, cursor) => {
                let request = OriginRequest::follow(self.headers(), &stream, cursor.as_ref());
                self.forward(&Plan::stream(config, &stream)?, &request).await
            }
            Call::Stop(stream) => {
                let request = OriginRequest::stop(self.headers(), &stream);
                self.forward(&Plan::stream(config, &stream)?, &request).await
            }
            Call::Health => self.health().await,
            Call::Options(allow) => respond(204, &self.caller.cors.options(allow), None),
        }
    }

    async fn start(&self, start: Start) -> Result<Response, Problem> {
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
        if let Admission::Counted(key) = admission {
            self.count(&key).await?;
        }
        let key = match start.key {
            None if plan.wants_key() => random_uuid().parse().ok(),
            key => key,
        };
        let request =
            OriginRequest::start(self.headers(), &start.prompt, &variables, start.cursor.as_ref(), key.as_ref());
        self.forward(&plan, &request).await
    }

    /// The client speaks HTTP/1.0, where a body that was broken off looks whole. Production says so in `request.cf`; a
    /// `workerd serve` of one's own, which answers in HTTP/1.0 too, doesn't.
    fn is_http_10(&self) -> bool {
        let cf = Reflect::get(self.request, &"cf".into()).unwrap_or_default();
        let protocol = Reflect::get(&cf, &"httpProtocol".into()).ok().and_then(|text| text.as_string());
        protocol.as_deref() == Some("HTTP/1.0")
    }

    async fn read_body(&self) -> Result<Vec<u8>, Problem> {
        read_bounded(self.request.body(), Some(BODY_DEADLINE)).await.map_err(|error| match error {
            ReadError::TooLarge => Problem::too_large(MAX_BODY_BYTES),
            ReadError::TooSlow => Problem::slow_body(),
            ReadError::Broken => Problem::bad_request("the body broke off"),
        })
    }

    async fn count(&self, key: &str) -> Result<(), Problem> {
        let limiter = self.edge.limiter.as_ref().ok_or_else(Problem::no_rate_limit)?;
        match runtime::has_room(limiter, key).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Problem::too_many_starts(LIMIT_PERIOD)),
            Err(error) => Err(runtime::broken(&error)),
        }
    }

    fn headers(&self) -> HeaderList {
        upstream::request_headers(self.header)
    }

    /// Asks the plan's origins in turn, until one gives an answer that can be passed on.
    async fn forward(&self, plan: &Plan<'_>, request: &OriginRequest) -> Result<Response, Problem> {
        let mut origins = plan.origins.iter().peekable();
        let mut refused = Problem::no_such_stream();
        while let Some(origin) = origins.next() {
            let is_last = origins.peek().is_none();
            refused = match self.attempt(plan, origin, request, is_last).await {
                Ok(response) => return Ok(response),
                Err(Refusal::Final(problem)) => return Err(problem),
                Err(Refusal::Next(problem)) => problem,
            };
        }
        Err(refused)
    }

    async fn attempt(
        &self,
        plan: &Plan<'_>,
        origin: &Origin,
        request: &OriginRequest,
        is_last: bool,
    ) -> Result<Response, Refusal> {
        let sent = send(&self.edge.config, origin, request, HEADERS_DEADLINE).await;
        // The deadline ends with this attempt: a body that is piped may take as long as it takes.
        let (answer, _deadline) = sent.map_err(|failure| match failure {
            Failure::Unreached => plan.unreached(),
            Failure::TimedOut => plan.timed_out(),
        })?;
        let answer_headers = answer.headers();
        let header = |name: &str| answer_headers.get(name).ok().flatten();
        let mut headers = upstream::response_headers(origin, &header);
        self.caller.cors.mark(&mut headers);
        let content_encoding = header("content-encoding");
        let head = AnswerHead {
            status: answer.status(),
            content_type: headers.get("content-type"),
            content_encoding: content_encoding.as_deref(),
        };
        let body = answer.body();
        match plan.judge(&head) {
            Ok(Worth::Pipe) => respond(head.status, &headers, body.as_ref()).map_err(Refusal::Final),
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
                // Nobody reads it: the origin can stop whatever it does for it.
                if let Some(body) = body {
                    let _ = body.cancel();
                }
                Err(refusal)
            }
        }
    }

    /// Answers with a problem.
    fn refuse(&self, problem: &Problem) -> Result<Response, Problem> {
        let mut headers = HeaderList::default();
        self.caller.cors.mark(&mut headers);
        headers.append("content-type", PROBLEM);
        headers.append("cache-control", "no-store");
        if let Some(allow) = problem.allow() {
            headers.append("allow", allow);
        }
        if let Some(seconds) = problem.retry_after_s() {
            headers.append("retry-after", &seconds.to_string());
        }
        respond_text(problem.status(), &headers, &problem.document(self.url.path))
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
        let request = OriginRequest::health(self.headers());
        let checks = failover::own_origins(config)
            .map(async |origin| (origin.name.as_str(), check_health(config, origin, &request).await));
        let report = Health::of(config, join_all(checks).await).report();
        self.edge.looks.borrow_mut().keep(report.clone(), Date::now());
        report
    }
}

async fn check_health(config: &Config, origin: &Origin, request: &OriginRequest) -> Status {
    let Ok((answer, _deadline)) = send(config, origin, request, health::DEADLINE).await else {
        return Status::Down;
    };
    let document = read_bounded(answer.body(), None).await;
    document.map_or(Status::Down, |document| Status::of_origin(answer.status(), &document))
}
