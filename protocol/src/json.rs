//! Bodies as JSON.

use serde_json::Value;

/// Reads a body. Half a surrogate pair, which JavaScript cuts out of a string with `slice`, becomes U+FFFD, as a query
/// has it already. `None` where it is no JSON.
pub fn parse(body: &[u8]) -> Option<Value> {
    serde_json::from_slice(&without_halves(body)).ok()
}

/// JSON in which each escape of half a surrogate pair is that of U+FFFD. (`serde_json` refuses the half.)
fn without_halves(json: &[u8]) -> Vec<u8> {
    let mut whole = Vec::with_capacity(json.len());
    let mut rest = json;
    while let Some(&first) = rest.first() {
        let taken = match (escaped_unit(rest), first) {
            (Some(0xd800..=0xdbff), _) if matches!(escaped_unit(&rest[ESCAPE..]), Some(0xdc00..=0xdfff)) => 2 * ESCAPE,
            (Some(0xd800..=0xdfff), _) => {
                whole.extend_from_slice(b"\\ufffd");
                rest = &rest[ESCAPE..];
                continue;
            }
            // Of `\\ud83e` the first two are an escape.
            (None, b'\\') => rest.len().min(2),
            _ => 1,
        };
        whole.extend_from_slice(&rest[..taken]);
        rest = &rest[taken..];
    }
    whole
}

/// The bytes of `\uXXXX`.
const ESCAPE: usize = 6;

/// The UTF-16 code unit whose escape the text begins with (RFC 8259, section 7).
fn escaped_unit(text: &[u8]) -> Option<u16> {
    let digits = text.strip_prefix(b"\\u")?.get(..4)?;
    digits.iter().try_fold(0, |unit: u16, digit| {
        let digit = char::from(*digit).to_digit(16)?;
        Some(unit << 4 | u16::try_from(digit).ok()?)
    })
}
