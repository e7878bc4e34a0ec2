//! Parsers of settings' values. Each error names what the setting takes and never repeats the value, which may be a
//! password in the wrong place.

use std::{
    fmt::{Debug, Display},
    ops::RangeInclusive,
    str::FromStr,
    time::Duration,
};

use bytesize::ByteSize;

/// The greatest count of anything. A greater one is a typing error.
pub(super) const MAX_COUNT: usize = 1_000_000;

/// The shortest timeout. No network answers faster, so a shorter one would fail every request.
pub(super) const MIN_TIMEOUT: Duration = Duration::from_millis(10);
/// The longest timeout, and the longest of any time in which a visitor waits.
pub(super) const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// A time that can be switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrOff(pub Option<Duration>);

/// A number, with or without decimals.
pub(super) fn number<T>(range: RangeInclusive<T>) -> impl Fn(&str) -> Result<T, String> + Clone
where
    T: FromStr + PartialOrd + Debug + Display + Clone,
{
    move |text| {
        // NaN is within no range.
        let number = text.trim().parse().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| format!("takes a number from {:?} to {:?}", range.start(), range.end()))
    }
}

/// A time within `range`; the error adds `why`.
pub(super) fn time(
    range: RangeInclusive<Duration>,
    why: &'static str,
) -> impl Fn(&str) -> Result<Duration, String> + Clone {
    move |text| {
        let time = humantime::parse_duration(text.trim()).ok().filter(|time| range.contains(time));
        time.ok_or_else(|| format!("takes a time {}", limits(&range, why)))
    }
}

/// A time within `range`, or `off`, which 0s means too; the error adds `why`.
pub(super) fn time_or_off(
    range: RangeInclusive<Duration>,
    why: &'static str,
) -> impl Fn(&str) -> Result<OrOff, String> + Clone {
    move |text| {
        let text = text.trim();
        let time = humantime::parse_duration(text).ok();
        if text == "off" || time == Some(Duration::ZERO) {
            return Ok(OrOff(None));
        }
        let time = time.filter(|time| range.contains(time));
        time.map(|time| OrOff(Some(time))).ok_or_else(|| format!("takes off, or a time {}", limits(&range, why)))
    }
}

fn limits(range: &RangeInclusive<Duration>, why: &str) -> String {
    let (least, most) = (humantime::format_duration(*range.start()), humantime::format_duration(*range.end()));
    let because = if why.is_empty() { String::new() } else { format!(": {why}") };
    format!("with its unit, such as 500ms or 10s, from {least} to {most}{because}")
}

/// A size in bytes.
pub(super) fn size(range: RangeInclusive<ByteSize>) -> impl Fn(&str) -> Result<usize, String> + Clone {
    move |text| {
        let size = text.trim().parse().ok().filter(|size: &ByteSize| range.contains(size));
        let bytes = size.and_then(|size| usize::try_from(size.as_u64()).ok());
        bytes.ok_or_else(|| format!("takes a size, such as 64MiB, from {} to {}", range.start(), range.end()))
    }
}

/// Parses a `T`; the error says what the setting `takes`.
pub(super) fn parsed<T: FromStr>(takes: &'static str) -> impl Fn(&str) -> Result<T, String> + Clone {
    move |text| text.trim().parse().map_err(|_| format!("takes {takes}"))
}
