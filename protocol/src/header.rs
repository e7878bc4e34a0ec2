//! Media types, and the headers that the edge and the origin both read or write.

/// The media type of an event stream (HTML, section 9.2.5).
pub const EVENT_STREAM: &str = "text/event-stream";
/// The media type of JSON (RFC 8259, section 11).
pub const JSON: &str = "application/json";
/// The media type of a problem document (RFC 9457, section 3).
pub const PROBLEM: &str = "application/problem+json";
/// The response header with a problem's kind, whatever shape its body has.
pub const PROBLEM_KIND: &str = "headwater-problem";
/// The response header that lists what of a request changes nothing.
pub const IGNORED: &str = "headwater-ignored";

/// Tells an origin who asks: a caller whose key the edge knows. A stream that one caller started is none for another.
pub const CALLER: &str = "x-headwater-caller";
/// A chat's key that the edge made for itself, so that two origins don't both generate. The client doesn't know it, and
/// can't come back with it: his leaving is a stop.
pub const ATTEMPT: &str = "x-headwater-attempt";

/// Whether a `Content-Type` is of this media type, whatever its parameters (RFC 9110, section 8.3.1).
pub fn is_media_type(content_type: &str, media_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case(media_type)
}

/// Whether an `Accept` names event streams, and not with a weight of zero (RFC 9110, section 12.5.1).
///
/// A wildcard names nothing: `*/*` is what the plain fetch loop sends, which wants bare frames.
pub fn accepts_event_stream(accept: &str) -> bool {
    accept.split(',').any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let named = parts.next().is_some_and(|essence| essence.eq_ignore_ascii_case(EVENT_STREAM));
        let zero = |part: &str| {
            let weight = part.split_once('=').filter(|(name, _)| name.trim().eq_ignore_ascii_case("q"));
            let weight = weight.map_or("", |(_, weight)| weight.trim());
            // Not by `f32`, whose parser costs the edge 15 kB of wasm.
            weight.starts_with('0') && weight.bytes().all(|byte| matches!(byte, b'0' | b'.'))
        };
        named && !parts.any(zero)
    })
}

/// Whether a `Sec-Purpose` says that a browser asks before anybody wants the answer.
///
/// It is a structured field (RFC 9651): `prefetch`, or `prefetch;prerender` and the like.
pub fn is_prefetch(sec_purpose: &str) -> bool {
    sec_purpose.split([';', ',']).any(|item| item.trim() == "prefetch")
}

/// A header's text, else that of the query; an empty one is none.
///
/// The header wins: an `EventSource` sends its newest cursor there, beside the query that it was opened with.
pub fn header_or(header: Option<String>, query: Option<String>) -> Option<String> {
    let given = |text: &String| !text.is_empty();
    header.filter(given).or(query.filter(given))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_accept_names_event_streams_unless_its_weight_is_zero() {
        for accept in [
            "text/event-stream",
            "Text/Event-Stream",
            "application/json, text/event-stream;q=0.5",
            "text/event-stream;charset=utf-8;q=1",
            "text/event-stream;q=0.001",
            "text/event-stream;q=nonsense",
        ] {
            assert!(accepts_event_stream(accept), "{accept}");
        }
        for accept in [
            "",
            "*/*",
            "text/*",
            "application/json",
            "text/event-stream;q=0, application/json",
            "text/event-stream; Q=0.000",
            "text/event-stream-2",
            "application/json;profile=text/event-stream",
        ] {
            assert!(!accepts_event_stream(accept), "{accept}");
        }
    }

    #[test]
    fn a_media_type_is_compared_without_its_parameters() {
        assert!(is_media_type("Application/JSON ; charset=utf-8", JSON));
        assert!(!is_media_type("application/json-seq", JSON));
        assert!(!is_media_type("", JSON));
    }

    #[test]
    fn a_prefetch_is_told_apart_from_other_purposes() {
        for purpose in ["prefetch", "prefetch;prerender", "other, prefetch", "prerender; prefetch"] {
            assert!(is_prefetch(purpose), "{purpose}");
        }
        for purpose in ["", "prefetchable", "prerender"] {
            assert!(!is_prefetch(purpose), "{purpose}");
        }
    }

    #[test]
    fn a_header_wins_over_the_query_and_an_empty_one_does_not_hide_it() {
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(header_or(text("a"), text("b")), text("a"));
        assert_eq!(header_or(text(""), text("b")), text("b"));
        assert_eq!(header_or(None, text("")), None);
    }
}
