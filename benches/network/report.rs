//! What was measured, as a table for people or as lines for programs.

use std::fmt;

use serde_json::json;

/// A figure.
#[derive(Debug)]
pub(crate) struct Table {
    /// What is measured, and of what.
    pub(crate) title: String,
    /// What it is beside.
    pub(crate) notes: Vec<String>,
    pub(crate) rows: Vec<Row>,
}

/// One case.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) case: String,
    pub(crate) unit: Unit,
    /// What each run came to.
    pub(crate) antiphon: Vec<f64>,
    /// The same of the baseline, if there is one.
    pub(crate) raw: Vec<f64>,
    pub(crate) bound: Option<Bound>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Unit {
    Microseconds,
    Milliseconds,
    PerSecond,
    Bytes,
    Count,
}

/// What it should keep to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bound {
    AtMost(f64),
    AtLeast(f64),
    /// So many times the baseline at most.
    Times(f64),
    /// So much more than the baseline at most.
    More(f64),
}

impl Row {
    pub(crate) fn new(case: impl Into<String>, unit: Unit) -> Self {
        Self { case: case.into(), unit, antiphon: Vec::new(), raw: Vec::new(), bound: None }
    }

    pub(crate) fn bound(self, bound: Bound) -> Self {
        Self { bound: Some(bound), ..self }
    }

    /// Of runs side by side, for what slows the machine down for a while slows both.
    fn ratio(&self) -> Option<f64> {
        let ratios: Vec<_> = self.antiphon.iter().zip(&self.raw).map(|(antiphon, raw)| antiphon / raw).collect();
        median(&ratios)
    }

    fn is_kept(&self) -> Option<bool> {
        let (antiphon, raw) = (median(&self.antiphon)?, median(&self.raw).unwrap_or_default());
        Some(match self.bound? {
            Bound::AtMost(most) => antiphon <= most,
            Bound::AtLeast(least) => antiphon >= least,
            Bound::Times(times) => self.ratio()? <= times,
            Bound::More(more) => antiphon <= raw + more,
        })
    }

    fn bound_in_words(&self) -> String {
        let value = |value| Value(value, self.unit);
        match self.bound {
            None => String::new(),
            Some(Bound::AtMost(most)) => format!("at most {}", value(most)),
            Some(Bound::AtLeast(least)) => format!("at least {}", value(least)),
            Some(Bound::Times(times)) => format!("at most {times} times raw"),
            Some(Bound::More(more)) => format!("at most {} above raw", value(more)),
        }
    }
}

/// The middle one, or what is between the two in the middle.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    quantile(values, 0.5)
}

/// What this part of all values is not above; between two values by their distance.
pub(crate) fn quantile(values: &[f64], part: f64) -> Option<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let place = part * values.len().checked_sub(1)? as f64;
    let (below, above) = (values[place.floor() as usize], values[place.ceil() as usize]);
    Some(below + (above - below) * place.fract())
}

impl Table {
    pub(crate) fn print(&self) {
        println!("{}", self.title);
        println!("  {:<44} {:>13} {:>13} {:>7}  bound", "", "antiphon", "raw", "ratio");
        for row in &self.rows {
            let value =
                |values: &[f64]| median(values).map_or(String::new(), |value| Value(value, row.unit).to_string());
            let ratio = row.ratio().map_or(String::new(), |ratio| format!("{ratio:.2}"));
            let kept = row.is_kept().map_or("", |kept| if kept { ": kept" } else { ": MISSED" });
            let (antiphon, raw) = (value(&row.antiphon), value(&row.raw));
            let line =
                format!("  {:<44} {antiphon:>13} {raw:>13} {ratio:>7}  {}{kept}", row.case, row.bound_in_words());
            println!("{}", line.trim_end());
        }
        self.notes.iter().for_each(|note| println!("  {note}"));
        println!();
    }

    pub(crate) fn print_json(&self, figure: &str) {
        for row in &self.rows {
            let line = json!({
                "figure": figure,
                "title": self.title,
                "case": row.case,
                "unit": row.unit.name(),
                "antiphon": median(&row.antiphon),
                "raw": median(&row.raw),
                "ratio": row.ratio(),
                "bound": row.bound.map(|_| row.bound_in_words()),
                "kept": row.is_kept(),
                "runs": { "antiphon": row.antiphon, "raw": row.raw },
            });
            println!("{line}");
        }
    }
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::Microseconds => "us",
            Self::Milliseconds => "ms",
            Self::PerSecond => "/s",
            Self::Bytes => "bytes",
            Self::Count => "",
        }
    }
}

/// Three digits that count, thousands apart.
struct Value(f64, Unit);

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(value, unit) = *self;
        let decimals = if value.abs() < 10.0 { 2 } else { usize::from(value.abs() < 100.0) };
        let plain = format!("{value:.decimals$}");
        let whole = plain.find('.').unwrap_or(plain.len());
        let mut text = String::new();
        for (place, digit) in plain.chars().enumerate() {
            let before = text.ends_with(|last: char| last.is_ascii_digit());
            if before && place < whole && (whole - place) % 3 == 0 {
                text.push(',');
            }
            text.push(digit);
        }
        let space = if matches!(unit, Unit::PerSecond | Unit::Count) { "" } else { " " };
        f.pad(&format!("{text}{space}{}", unit.name()))
    }
}
