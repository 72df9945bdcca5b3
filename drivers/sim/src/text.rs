//! How quantities are written in plans and faults: whole numbers with a unit, so that nothing is rounded.

use std::time::Duration;

use antiphon::rng::Ratio;

/// What is expected where a duration stands.
pub(crate) const DURATION: &str = "a whole number of d, h, s, ms, us or ns; for instance 20ms";
/// What is expected where an amount of bytes stands.
pub(crate) const BYTES: &str = "a whole number of B, kB or MB; for instance 64kB";
/// What is expected where a ratio stands.
pub(crate) const RATIO: &str = "N/M with whole numbers, N at most M, M at least 1; for instance 1/20";

const TIME_UNITS: [(&str, u128); 6] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];
const BYTE_UNITS: [(&str, u128); 3] = [("MB", 1_000_000), ("kB", 1_000), ("B", 1)];

/// In the largest unit of which it is a whole number.
pub(crate) fn duration_text(duration: Duration) -> String {
    in_units(duration.as_nanos(), &TIME_UNITS)
}

pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let nanos = from_units(text, &TIME_UNITS)?;
    let seconds = u64::try_from(nanos / 1_000_000_000).ok()?;
    Some(Duration::new(seconds, (nanos % 1_000_000_000) as u32))
}

/// In the largest unit of which it is a whole number.
pub(crate) fn bytes_text(bytes: u64) -> String {
    in_units(bytes.into(), &BYTE_UNITS)
}

pub(crate) fn parse_bytes(text: &str) -> Option<u64> {
    from_units(text, &BYTE_UNITS)?.try_into().ok()
}

pub(crate) fn parse_ratio(text: &str) -> Option<Ratio> {
    text.parse().ok()
}

fn in_units(value: u128, units: &[(&str, u128)]) -> String {
    let smallest = units[units.len() - 1];
    let (unit, scale) = match value {
        0 => smallest,
        _ => units.iter().find(|(_, scale)| value.is_multiple_of(*scale)).copied().unwrap_or(smallest),
    };
    format!("{}{unit}", value / scale)
}

fn from_units(text: &str, units: &[(&str, u128)]) -> Option<u128> {
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let (_, scale) = units.iter().find(|(name, _)| *name == unit)?;
    digits.parse::<u128>().ok()?.checked_mul(*scale)
}
