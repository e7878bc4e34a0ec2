//! Parsers of settings' values: each knows what it takes and says so. None repeats what it was given, which may be a
//! password in the wrong place.

use std::{
    fmt::{Debug, Display},
    ops::RangeInclusive,
    str::FromStr,
    time::Duration,
};

use bytesize::ByteSize;

/// More than this of anything is a slip of the hand.
pub(super) const MAX_COUNT: usize = 1_000_000;

/// The shortest time-out. Nothing answers faster over a network, and a shorter one would fail every request.
pub(super) const MIN_TIMEOUT: Duration = Duration::from_millis(10);
/// The longest time-out, and the longest of any time in which a visitor waits.
pub(super) const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// A time that can be switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrOff(pub Option<Duration>);

/// A whole or broken number.
pub(super) fn number<T>(range: RangeInclusive<T>) -> impl Fn(&str) -> Result<T, String> + Clone
where
    T: FromStr + PartialOrd + Debug + Display + Clone,
{
    move |text| {
        // Nothing that isn't a number is within a range.
        let number = text.trim().parse().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| format!("takes a number from {:?} to {:?}", range.start(), range.end()))
    }
}

/// A time; `why` it has these limits.
pub(super) fn time(
    range: RangeInclusive<Duration>,
    why: &'static str,
) -> impl Fn(&str) -> Result<Duration, String> + Clone {
    move |text| {
        let time = humantime::parse_duration(text.trim()).ok().filter(|time| range.contains(time));
        time.ok_or_else(|| format!("takes a time {}", limits(&range, why)))
    }
}

/// A time, or `off`, which is also what 0s means; `why` it has these limits.
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

/// What `T` parses; `takes` says what that is.
pub(super) fn parsed<T: FromStr>(takes: &'static str) -> impl Fn(&str) -> Result<T, String> + Clone {
    move |text| text.trim().parse().map_err(|_| format!("takes {takes}"))
}
