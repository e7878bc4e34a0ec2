//! What several handlers read of a request.

use std::collections::BTreeMap;

use axum::{
    extract::{Query, Request},
    http::{HeaderMap, HeaderName, HeaderValue, Method, header},
};
use headwater_protocol::{
    CURSOR_PARAMETERS, Cursor, Problem, Variables,
    header::{self as rules, accepts_event_stream},
};

const CALLER: HeaderName = HeaderName::from_static(rules::CALLER);
pub(super) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Refuses methods that aren't among `methods` (`"GET, POST"`). axum's `get` would also serve HEAD.
pub(super) fn only(methods: &'static str, method: &Method) -> Result<(), Problem> {
    if methods.split(", ").any(|known| method == known) { Ok(()) } else { Err(Problem::invalid_method(methods)) }
}

/// Whether a browser sends it ahead of a visit (`Sec-Purpose: prefetch`).
pub(super) fn is_prefetch(headers: &HeaderMap) -> bool {
    headers.get_all("sec-purpose").iter().filter_map(|purpose| purpose.to_str().ok()).any(rules::is_prefetch)
}

/// Whether `Accept` names event streams.
pub(super) fn names_event_stream(headers: &HeaderMap) -> bool {
    let names = |accept: &HeaderValue| accept.to_str().is_ok_and(accepts_event_stream);
    headers.get_all(header::ACCEPT).iter().any(names)
}

/// Who asks, where the edge knows.
pub(super) fn caller(headers: &HeaderMap) -> Option<&str> {
    text(headers, &CALLER)
}

/// A header's text.
pub(super) fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// The query's members.
pub(super) fn query(request: &Request) -> Result<Variables, Problem> {
    let query = Query::<BTreeMap<String, String>>::try_from_uri(request.uri());
    query
        .map(|Query(query)| Variables(query))
        .map_err(|_| Problem::bad_request("the query doesn't parse; encode its values"))
}

/// Takes the cursor out of a query, whatever its name. An empty one is none.
pub(super) fn take_cursor(query: &mut Variables) -> Option<String> {
    let cursors = CURSOR_PARAMETERS.map(|name| query.0.remove(name));
    cursors.into_iter().flatten().find(|cursor| !cursor.is_empty())
}

/// A header's text, else the parameter. Bytes that aren't UTF-8 become U+FFFD, so that the value is refused and not
/// shortened.
pub(super) fn header_or(headers: &HeaderMap, name: &HeaderName, parameter: Option<String>) -> Option<String> {
    let header = headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    rules::header_or(header, parameter)
}

pub(super) fn parse_cursor(text: &str) -> Result<Cursor, Problem> {
    text.parse().map_err(|_| Problem::malformed_cursor())
}
