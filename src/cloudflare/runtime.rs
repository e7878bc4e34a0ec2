//! What the Workers runtime does for the edge: fetch with a deadline, bounded reads, responses, the rate limiter.
//!
//! Every crossing between wasm and JavaScript has its price, so an object is written as JSON and crosses once.

use crate::config::{Config, Origin};
use crate::headers::HeaderList;
use crate::upstream::OriginRequest;
use headwater_protocol::{MAX_BODY_BYTES, Problem};
use js_sys::futures::JsFuture;
use js_sys::{Array, Function, Promise, Reflect, Uint8Array};
use serde::Serialize;
use std::time::Duration;
use wasm_bindgen::prelude::*;
use web_sys::{
    AbortController, ReadableStream, ReadableStreamDefaultReader, ReadableStreamReadResult, RequestInit, Response,
    ResponseInit, console,
};
use worker::console_error;

#[wasm_bindgen]
extern "C" {
    /// Named by its object, because the worker's own handler is a global of that name too.
    #[wasm_bindgen(catch, js_namespace = globalThis)]
    fn fetch(url: &str, init: &RequestInit) -> Result<Promise, JsValue>;

    /// A reader that fills a buffer (Streams, section 4.5). Not crate `web-sys`'s: that one knows no `min`.
    #[wasm_bindgen(js_name = ReadableStreamBYOBReader)]
    type BufferReader;

    #[wasm_bindgen(catch, constructor, js_class = "ReadableStreamBYOBReader")]
    fn of(stream: &ReadableStream) -> Result<BufferReader, JsValue>;

    #[wasm_bindgen(method)]
    fn read(this: &BufferReader, buffer: &Uint8Array, options: &JsValue) -> Promise;

    #[wasm_bindgen(method)]
    fn cancel(this: &BufferReader) -> Promise;

    #[wasm_bindgen(js_namespace = crypto, js_name = randomUUID)]
    pub(super) fn random_uuid() -> String;

    /// The rate limit's binding. Not crate `worker`'s: that one brings a serialiser for any JavaScript value.
    pub(super) type Limiter;

    #[wasm_bindgen(catch, method)]
    fn limit(this: &Limiter, options: &JsValue) -> Result<Promise, JsValue>;

    /// Calls `callback(argument)` once.
    #[wasm_bindgen(js_name = setTimeout)]
    fn set_timeout(callback: &Function, delay_ms: u32, argument: &JsValue) -> JsValue;

    #[wasm_bindgen(js_name = clearTimeout)]
    fn clear_timeout(timer: &JsValue);

    #[wasm_bindgen(thread_local_v2, js_namespace = ["AbortController", "prototype"], js_name = abort)]
    static ABORT: Function;

    #[wasm_bindgen(thread_local_v2, js_namespace = ["Function", "prototype"], js_name = call)]
    static CALL: Function;
}

/// Why an origin gave no answer.
pub(super) enum Failure {
    /// No connection, or it broke.
    Unreached,
    /// No headers within the deadline.
    TimedOut,
}

/// Sends a request, with the body that was kept for it, and waits for the headers of its answer. The deadline holds until it
/// is dropped.
pub(super) async fn send(
    config: &Config,
    origin: &Origin,
    request: &OriginRequest,
    kept: Option<&Uint8Array>,
    limit: Duration,
) -> Result<(Response, Deadline), Failure> {
    let unreached = |error: JsValue| {
        console::error_3(&"origin:".into(), &origin.name.as_str().into(), &error);
        Failure::Unreached
    };
    let init: RequestInit = to_js(&FetchOptions {
        method: request.method,
        redirect: "manual",
        cache: "no-store",
        headers: &request.headers_for(config, origin),
        body: request.body.as_deref(),
    })
    .map_err(unreached)?
    .unchecked_into();
    let deadline = Deadline::after(limit).map_err(unreached)?;
    if let Some(body) = kept {
        init.set_body(body);
    }
    init.set_signal(Some(&deadline.abort.signal()));
    let answer = fetch(&origin.join(&request.path), &init).map_err(unreached)?;
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
pub(super) struct Deadline {
    abort: AbortController,
    _timer: Timer,
}

impl Deadline {
    fn after(limit: Duration) -> Result<Self, JsValue> {
        thread_local! {
            /// `controller => controller.abort()`
            static EXPIRE: Function = CALL.with(|call| ABORT.with(|abort| call.bind0(abort)));
        }
        let abort = AbortController::new()?;
        let timer = EXPIRE.with(|expire| Timer::start(expire, limit, &abort));
        Ok(Self { abort, _timer: timer })
    }

    fn has_passed(&self) -> bool {
        self.abort.signal().aborted()
    }
}

/// Calls a function later, unless it is dropped before.
struct Timer(JsValue);

impl Timer {
    fn start(callback: &Function, delay: Duration, argument: &JsValue) -> Self {
        Self(set_timeout(callback, u32::try_from(delay.as_millis()).unwrap_or(u32::MAX), argument))
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        clear_timeout(&self.0);
    }
}

/// Waits.
pub(super) async fn sleep(delay: Duration) {
    let mut timer = None;
    let over = Promise::new(&mut |resolve, _| timer = Some(Timer::start(&resolve, delay, &JsValue::UNDEFINED)));
    // It is never rejected.
    let _ = JsFuture::from(over).await;
}

/// Why a body can't be used.
pub(super) enum ReadError {
    /// It has more bytes than it may. The rest is given up unread.
    TooLarge,
    /// It took longer than it may.
    TooSlow,
    /// It broke off.
    Broken,
}

impl ReadError {
    /// The answer to a request with this body, which may have `most` bytes.
    pub(super) fn problem(&self, most: usize) -> Problem {
        match self {
            Self::TooLarge => Problem::too_large(most),
            Self::TooSlow => Problem::slow_body(),
            Self::Broken => Problem::bad_request("the body broke off"),
        }
    }
}

/// Reads a body of up to [`MAX_BODY_BYTES`], within `limit` where there is one.
pub(super) async fn read_bounded(body: Option<ReadableStream>, limit: Option<Duration>) -> Result<Vec<u8>, ReadError> {
    let Some(body) = body else {
        return Ok(Vec::new());
    };
    let reader = ReadableStreamDefaultReader::new(&body).map_err(|_| ReadError::Broken)?;
    let expiry = limit.map(Expiry::after);
    let bytes = read_chunks(&reader, expiry.as_ref()).await;
    if bytes.is_err() {
        let _ = reader.cancel();
    }
    bytes
}

async fn read_chunks(reader: &ReadableStreamDefaultReader, expiry: Option<&Expiry>) -> Result<Vec<u8>, ReadError> {
    let mut bytes = Vec::new();
    loop {
        let read = in_time(reader.read(), expiry).await?;
        if read.get_done().unwrap_or(true) {
            return Ok(bytes);
        }
        let chunk: Uint8Array = read.get_value().unchecked_into();
        let length = chunk.length() as usize;
        if bytes.len() + length > MAX_BODY_BYTES {
            return Err(ReadError::TooLarge);
        }
        let start = bytes.len();
        bytes.resize(start + length, 0);
        chunk.copy_to(&mut bytes[start..]);
    }
}

/// Reads a body of up to `most` bytes, within `limit`, and leaves it where it is: one crossing, however long it is.
pub(super) async fn keep_bounded(body: &ReadableStream, most: usize, limit: Duration) -> Result<Uint8Array, ReadError> {
    #[derive(Serialize)]
    struct Options {
        /// Not less, but at the body's end.
        min: u32,
    }
    let reader = BufferReader::of(body).map_err(|_| ReadError::Broken)?;
    // Room for what is too much.
    let room = u32::try_from(most + 1).map_err(|_| ReadError::TooLarge)?;
    let options = to_js(&Options { min: room }).map_err(|_| ReadError::Broken)?;
    let read = reader.read(&Uint8Array::new_with_length(room), &options);
    let bytes = in_time(read, Some(&Expiry::after(limit))).await.and_then(|read| {
        let bytes: Uint8Array = read.get_value().unchecked_into();
        if bytes.length() < room { Ok(bytes) } else { Err(ReadError::TooLarge) }
    });
    if bytes.is_err() {
        let _ = reader.cancel();
    }
    bytes
}

/// A time that passes.
struct Expiry {
    /// Is rejected with null then, which no broken body gives.
    over: Promise,
    _timer: Option<Timer>,
}

impl Expiry {
    fn after(limit: Duration) -> Self {
        let mut timer = None;
        let over = Promise::new(&mut |_, reject| timer = Some(Timer::start(&reject, limit, &JsValue::NULL)));
        Self { over, _timer: timer }
    }
}

async fn in_time(read: Promise, expiry: Option<&Expiry>) -> Result<ReadableStreamReadResult, ReadError> {
    let read = match expiry {
        Some(expiry) => Promise::race(&Array::of2(&read, &expiry.over)),
        None => read,
    };
    let read = JsFuture::from(read).await;
    let read = read.map_err(|error| if error.is_null() { ReadError::TooSlow } else { ReadError::Broken })?;
    Ok(read.unchecked_into())
}

/// Asks the rate limit for one more of this key (Workers, rate limiting: `limit({ key })` gives `{ success }`).
pub(super) async fn has_room(limiter: &Limiter, key: &str) -> Result<bool, JsValue> {
    #[derive(Serialize)]
    struct Options<'a> {
        key: &'a str,
    }
    let outcome = JsFuture::from(limiter.limit(&to_js(&Options { key })?)?).await?;
    Ok(Reflect::get(&outcome, &"success".into())?.is_truthy())
}

/// What `fetch` takes (Fetch, `RequestInit`).
#[derive(Serialize)]
struct FetchOptions<'a> {
    method: &'a str,
    redirect: &'a str,
    /// A zone that caches everything would serve one reader's stream to the next: a cursor is no part of the address.
    cache: &'a str,
    headers: &'a HeaderList,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a str>,
}

/// What a response is built from (Fetch, `ResponseInit`).
#[derive(Serialize)]
struct ResponseOptions<'a> {
    status: u16,
    headers: &'a HeaderList,
}

/// An answer whose body is the given stream itself: the runtime pumps it, the edge never sees a byte.
pub(super) fn respond(status: u16, headers: &HeaderList, body: Option<&ReadableStream>) -> Result<Response, Problem> {
    to_js(&ResponseOptions { status, headers })
        .and_then(|options| Response::new_with_opt_readable_stream_and_init(body, options.unchecked_ref()))
        .map_err(|error| broken(&error))
}

/// An answer with this text.
pub(super) fn respond_text(status: u16, headers: &HeaderList, body: &str) -> Result<Response, Problem> {
    to_js(&ResponseOptions { status, headers })
        .and_then(|options| Response::new_with_opt_str_and_init(Some(body), options.unchecked_ref()))
        .map_err(|error| broken(&error))
}

/// What is left when even a problem can't be told.
pub(super) fn bare_failure() -> Response {
    let init = ResponseInit::new();
    init.set_status(500);
    // Without a body there is nothing in it that a runtime could refuse.
    Response::new_with_opt_str_and_init(None, &init).unwrap_throw()
}

/// Logs what the runtime refused to do.
pub(super) fn broken(error: &JsValue) -> Problem {
    // The value itself: a console knows better than `Debug` how to show it.
    console::error_2(&"runtime:".into(), error);
    Problem::internal()
}

/// Hands an object over in one crossing, as JSON.
fn to_js(value: &impl Serialize) -> Result<JsValue, JsValue> {
    let json = serde_json::to_string(value).map_err(|error| error.to_string())?;
    js_sys::JSON::parse(&json)
}
