//! The Workers runtime: the one file that knows it.
//!
//! Every crossing between wasm and JavaScript has its price, so an object is written as JSON and crosses once, and a
//! body crosses never: the answer gets the very stream that the origin's answer has, and the runtime pumps it natively.

use crate::config::{Config, Origin};
use crate::failover::{self, AnswerHead, Failure, HEADERS_DEADLINE, Plan, Refusal, Verdict};
use crate::health::{self, Health, Report, Status};
use crate::policy::{self, Admission, Caller, LIMIT_PERIOD_S};
use crate::problem::{self, Problem};
use crate::route::{Call, IdempotencyKey, Input, JSON, MAX_BODY_BYTES, Parts, PromptName, Start, Target, Variables};
use crate::upstream::{self, HeaderList, OriginRequest};
use futures::future::join_all;
use js_sys::futures::JsFuture;
use js_sys::{Date, Function, Promise, Reflect, Uint8Array};
use serde::Serialize;
use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;
use wasm_bindgen::prelude::*;
use web_sys::{
    AbortController, ReadableStream, ReadableStreamDefaultReader, ReadableStreamReadResult, Request, RequestInit,
    Response, ResponseInit, console,
};
use worker::{Context, Env, console_error, event};

/// The rate limit's binding in wrangler.toml.
const LIMITER: &str = "START_LIMIT";

#[wasm_bindgen]
extern "C" {
    /// Named by its object, because the worker's own handler is a global of that name too.
    #[wasm_bindgen(catch, js_namespace = globalThis)]
    fn fetch(url: &str, init: &RequestInit) -> Result<Promise, JsValue>;

    #[wasm_bindgen(js_namespace = crypto, js_name = randomUUID)]
    fn random_uuid() -> String;

    /// The rate limit's binding. Not crate `worker`'s: that one brings a serialiser for any JavaScript value.
    type Limiter;

    #[wasm_bindgen(catch, method)]
    fn limit(this: &Limiter, options: &JsValue) -> Result<Promise, JsValue>;

    /// Calls `callback(argument)` once.
    #[wasm_bindgen(js_name = setTimeout)]
    fn set_timeout(callback: &Function, delay_ms: u32, argument: &AbortController) -> JsValue;

    #[wasm_bindgen(js_name = clearTimeout)]
    fn clear_timeout(timer: &JsValue);

    #[wasm_bindgen(thread_local_v2, js_namespace = ["AbortController", "prototype"], js_name = abort)]
    static ABORT: Function;

    #[wasm_bindgen(thread_local_v2, js_namespace = ["Function", "prototype"], js_name = call)]
    static CALL: Function;
}

/// Answers one request.
#[event(fetch)]
async fn handle(request: Request, env: Env, _context: Context) -> Result<Response, Infallible> {
    let url = request.url();
    let target = Target::of(&url);
    let request_headers = request.headers();
    // A crossing for each look: to take all headers over at once, as JSON, was measured to cost more than ten of them.
    let header = |name: &str| request_headers.get(name).ok().flatten();
    let mut headers = HeaderList::default();
    let answer = match Edge::of(&env) {
        Ok(edge) => {
            let caller = Caller::of(&edge.config, target.origin, &header);
            caller.cors.mark(&mut headers);
            let exchange = Exchange { edge: &edge, caller: &caller, header: &header, request: &request, target };
            exchange.answer().await
        }
        Err(problem) => Err(problem),
    };
    Ok(answer.or_else(|problem| refuse(&problem, target.path, headers)).unwrap_or_else(|_| bare_failure()))
}

/// What outlives a request: parsed at the first one, kept as long as the instance.
struct Edge {
    config: Config,
    limiter: Option<Limiter>,
    health: RefCell<Option<Report>>,
}

impl Edge {
    fn of(env: &Env) -> Result<Rc<Self>, Problem> {
        thread_local! {
            static EDGE: RefCell<Option<Rc<Edge>>> = const { RefCell::new(None) };
        }
        if let Some(edge) = EDGE.with_borrow(Clone::clone) {
            return Ok(edge);
        }
        let binding = |name: &str| Reflect::get(env, &name.into()).ok();
        let setting = |name: &str| binding(name)?.as_string();
        let config = Config::parse(setting).map_err(|error| {
            console_error!("settings: {error}");
            Problem::internal()
        })?;
        let limiter = binding(LIMITER).filter(JsValue::is_object).map(JsCast::unchecked_into);
        if config.rate_limit && limiter.is_none() {
            console_error!(
                "settings: the binding {LIMITER} is missing, so nothing starts; RATE_LIMIT=off does without it"
            );
        }
        let edge = Rc::new(Self { config, limiter, health: RefCell::default() });
        EDGE.set(Some(Rc::clone(&edge)));
        Ok(edge)
    }
}

/// One request on its way.
struct Exchange<'a> {
    edge: &'a Edge,
    caller: &'a Caller,
    header: &'a dyn Fn(&str) -> Option<String>,
    request: &'a Request,
    target: Target<'a>,
}

impl Exchange<'_> {
    async fn answer(&self) -> Result<Response, Problem> {
        let parts = Parts { method: &self.request.method(), target: self.target, header: self.header };
        let config = &self.edge.config;
        match Call::parse(&parts)? {
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
        let plan = Plan::start(config, start.cursor.as_ref())?;
        let admission = if plan.may_begin() { policy::may_start(config, self.caller)? } else { Admission::Free };
        let variables = match start.input {
            Input::Query(variables) => variables,
            Input::Body => match self.read_variables(&start.prompt).await {
                // A cursor says all.
                Err(_) if start.cursor.is_some() => Variables::default(),
                variables => variables?,
            },
        };
        if let Admission::Counted(key) = admission {
            self.count(&key).await?;
        }
        let key = match start.key {
            None if plan.wants_key() => IdempotencyKey::parse(random_uuid()),
            key => key,
        };
        let request =
            OriginRequest::start(self.headers(), &start.prompt, &variables, start.cursor.as_ref(), key.as_ref());
        self.forward(&plan, &request).await
    }

    async fn read_variables(&self, prompt: &PromptName) -> Result<Variables, Problem> {
        let body = read_bounded(self.request.body()).await?.ok_or(Problem::too_large())?;
        Variables::from_json(&body, prompt)
    }

    async fn count(&self, key: &str) -> Result<(), Problem> {
        let limiter = self.edge.limiter.as_ref().ok_or(Problem::unlimited())?;
        match has_room(limiter, key).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Problem::rate_limited(LIMIT_PERIOD_S)),
            Err(error) => Err(broken(&error)),
        }
    }

    fn headers(&self) -> HeaderList {
        upstream::request_headers(&self.edge.config, self.caller.address, self.header)
    }

    /// Asks the plan's origins in turn, until one gives an answer that can be passed on.
    async fn forward(&self, plan: &Plan<'_>, request: &OriginRequest) -> Result<Response, Problem> {
        let mut origins = plan.origins.iter().peekable();
        let mut refused = Problem::unknown_stream();
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
        // The deadline ends with this attempt: a body that is passed on may take as long as it takes.
        let (answer, _deadline) =
            send(origin, request, HEADERS_DEADLINE).await.map_err(|failure| plan.failed(failure))?;
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
            Verdict::PassUnlessOverloaded if !is_last => {
                let Ok(Some(document)) = read_bounded(body).await else {
                    return Err(plan.failed(Failure::Unreached));
                };
                if failover::is_overloaded(&document) {
                    return Err(Refusal::Next(Problem::overloaded()));
                }
                let document = String::from_utf8_lossy(&document);
                respond_text(head.status, &headers, &document).map_err(Refusal::Final)
            }
            Verdict::Pass | Verdict::PassUnlessOverloaded => {
                respond(head.status, &headers, body.as_ref()).map_err(Refusal::Final)
            }
            Verdict::Refuse(refusal) => {
                console_error!("origin: {} answered {}, which is of no use", origin.name, head.status);
                // Nobody reads it: whatever the origin does for it can stop.
                if let Some(body) = body {
                    let _ = body.cancel();
                }
                Err(refusal)
            }
        }
    }

    async fn health(&self) -> Result<Response, Problem> {
        let kept = self.edge.health.borrow().clone().filter(|report| report.is_fresh(Date::now()));
        let report = match kept {
            Some(report) => report,
            None => self.ask_all().await,
        };
        let mut headers = HeaderList::default();
        headers.append("content-type", JSON);
        headers.append("cache-control", "no-store");
        self.caller.cors.mark(&mut headers);
        respond_text(report.status_code, &headers, &report.document)
    }

    /// Asks all origins at once how they are.
    async fn ask_all(&self) -> Report {
        let checks = failover::own_origins(&self.edge.config).map(async |origin| {
            let request = OriginRequest::health(self.headers());
            (origin.name.as_str(), check_health(origin, &request).await)
        });
        let report = Health::of(join_all(checks).await).report(Date::now());
        self.edge.health.replace(Some(report.clone()));
        report
    }
}

/// Asks the rate limit for one more of this key (Workers, rate limiting: `limit({ key })` gives `{ success }`).
async fn has_room(limiter: &Limiter, key: &str) -> Result<bool, JsValue> {
    #[derive(Serialize)]
    struct Options<'a> {
        key: &'a str,
    }
    let outcome = JsFuture::from(limiter.limit(&to_js(&Options { key })?)?).await?;
    Ok(Reflect::get(&outcome, &"success".into())?.is_truthy())
}

async fn check_health(origin: &Origin, request: &OriginRequest) -> Status {
    let Ok((answer, _deadline)) = send(origin, request, health::DEADLINE).await else {
        return Status::Down;
    };
    match read_bounded(answer.body()).await {
        Ok(Some(document)) => Status::of_origin(answer.status(), &document),
        _ => Status::Down,
    }
}

/// Sends a request, and waits for the headers of its answer. The deadline holds until it is dropped.
async fn send(origin: &Origin, request: &OriginRequest, limit: Duration) -> Result<(Response, Deadline), Failure> {
    let unreached = |error: JsValue| {
        console::error_3(&"origin:".into(), &origin.name.as_str().into(), &error);
        Failure::Unreached
    };
    let init: RequestInit = to_js(&Init {
        method: request.method,
        redirect: "manual",
        headers: &request.headers,
        body: request.body.as_deref(),
    })
    .map_err(unreached)?
    .unchecked_into();
    let deadline = Deadline::after(limit).map_err(unreached)?;
    init.set_signal(Some(&deadline.abort.signal()));
    let answer = fetch(&origin.url.join(&request.path), &init).map_err(unreached)?;
    match JsFuture::from(answer).await {
        Ok(answer) => Ok((answer.unchecked_into(), deadline)),
        Err(_) if deadline.has_passed() => {
            console_error!("origin: {} timed out", origin.name);
            Err(Failure::TimedOut)
        }
        Err(error) => Err(unreached(error)),
    }
}

/// Breaks a fetch off when its time is over. The timer calls JavaScript's own `abort`: a wasm closure for each request
/// would cost a tenth of it.
struct Deadline {
    abort: AbortController,
    timer: JsValue,
}

impl Deadline {
    fn after(limit: Duration) -> Result<Self, JsValue> {
        thread_local! {
            /// `controller => controller.abort()`
            static EXPIRE: Function = CALL.with(|call| ABORT.with(|abort| call.bind0(abort)));
        }
        let abort = AbortController::new()?;
        let limit_ms = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX);
        let timer = EXPIRE.with(|expire| set_timeout(expire, limit_ms, &abort));
        Ok(Self { abort, timer })
    }

    fn has_passed(&self) -> bool {
        self.abort.signal().aborted()
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        clear_timeout(&self.timer);
    }
}

/// What `fetch` takes (Fetch, `RequestInit`).
#[derive(Serialize)]
struct Init<'a> {
    method: &'a str,
    redirect: &'a str,
    headers: &'a HeaderList,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a str>,
}

/// What a response is built from (Fetch, `ResponseInit`).
#[derive(Serialize)]
struct Head<'a> {
    status: u16,
    headers: &'a HeaderList,
}

/// Reads a body of up to [`MAX_BODY_BYTES`]; gives a longer one up unread, as `None`.
async fn read_bounded(body: Option<ReadableStream>) -> Result<Option<Vec<u8>>, Problem> {
    const BROKEN: Problem = Problem::bad_request("the body broke off");
    let mut bytes = Vec::new();
    let Some(body) = body else {
        return Ok(Some(bytes));
    };
    let reader = ReadableStreamDefaultReader::new(&body).map_err(|_| BROKEN)?;
    loop {
        let read = JsFuture::from(reader.read()).await.map_err(|_| BROKEN)?;
        let read: ReadableStreamReadResult = read.unchecked_into();
        if read.get_done().unwrap_or(true) {
            return Ok(Some(bytes));
        }
        let chunk: Uint8Array = read.get_value().unchecked_into();
        let length = chunk.length() as usize;
        if bytes.len() + length > MAX_BODY_BYTES {
            let _ = reader.cancel();
            return Ok(None);
        }
        let start = bytes.len();
        bytes.resize(start + length, 0);
        chunk.copy_to(&mut bytes[start..]);
    }
}

/// An answer whose body is the given stream itself: the runtime pumps it, the edge never sees a byte.
fn respond(status: u16, headers: &HeaderList, body: Option<&ReadableStream>) -> Result<Response, Problem> {
    to_js(&Head { status, headers })
        .and_then(|head| Response::new_with_opt_readable_stream_and_init(body, head.unchecked_ref()))
        .map_err(|error| broken(&error))
}

fn respond_text(status: u16, headers: &HeaderList, body: &str) -> Result<Response, Problem> {
    to_js(&Head { status, headers })
        .and_then(|head| Response::new_with_opt_str_and_init(Some(body), head.unchecked_ref()))
        .map_err(|error| broken(&error))
}

/// Answers with a problem.
fn refuse(problem: &Problem, path: &str, mut headers: HeaderList) -> Result<Response, Problem> {
    headers.append("content-type", problem::MEDIA_TYPE);
    headers.append("cache-control", "no-store");
    if let Some(allow) = problem.allow {
        headers.append("allow", allow);
    }
    if let Some(seconds) = problem.retry_after_s {
        headers.append("retry-after", &seconds.to_string());
    }
    respond_text(problem.status, &headers, &problem.document(path))
}

/// What is left when even a problem can't be told.
fn bare_failure() -> Response {
    let init = ResponseInit::new();
    init.set_status(500);
    // Without a body there is nothing in it that a runtime could refuse.
    Response::new_with_opt_str_and_init(None, &init).unwrap_throw()
}

/// Hands an object over in one crossing, as JSON.
fn to_js(value: &impl Serialize) -> Result<JsValue, JsValue> {
    let json = serde_json::to_string(value).map_err(|error| error.to_string())?;
    js_sys::JSON::parse(&json)
}

fn broken(error: &JsValue) -> Problem {
    // The value itself: a console knows better than `Debug` how to show it.
    console::error_2(&"runtime:".into(), error);
    Problem::internal()
}
