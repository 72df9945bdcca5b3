//! Results on stdout: lines, JSON, tables.

use std::fmt;
use std::io::{self, BufWriter, Stdout, Write};

use serde::Serialize;
use unicode_width::UnicodeWidthStr as _;

use crate::error::Failure;

/// The way to stdout.
#[derive(Debug)]
pub(crate) struct Output {
    json: bool,
    stream: BufWriter<Stdout>,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, stream: BufWriter::new(io::stdout()) }
    }

    /// Whether whoever reads it wants JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// One line with one object.
    pub(crate) fn object(&mut self, object: &impl Serialize) -> Result<(), Failure> {
        let written = serde_json::to_writer(&mut self.stream, object).map_err(io::Error::from);
        written.and_then(|()| self.stream.write_all(b"\n")).map_err(|error| Failure::output(&error))
    }

    /// One line of text, or of whatever bytes.
    pub(crate) fn line(&mut self, line: impl AsRef<[u8]>) -> Result<(), Failure> {
        let written = self.stream.write_all(line.as_ref()).and_then(|()| self.stream.write_all(b"\n"));
        written.map_err(|error| Failure::output(&error))
    }

    /// What `write` writes, as it is.
    pub(crate) fn with(&mut self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Failure> {
        write(&mut self.stream).map_err(|error| Failure::output(&error))
    }

    /// Brings what was written on its way.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.stream.flush().map_err(|error| Failure::output(&error))
    }

    /// A table.
    pub(crate) fn table(&mut self, table: &Table) -> Result<(), Failure> {
        table.lines().try_for_each(|line| self.line(line))
    }
}

/// Rows under a headline; the columns are as wide as they need to be.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<Align>,
    rows: Vec<Vec<String>>,
}

/// Where a column's words stand.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Align {
    Left,
    /// As numbers do.
    Right,
}

impl Table {
    pub(crate) fn new<const N: usize>(headline: [(&str, Align); N]) -> Self {
        Self::with(headline.into_iter().map(|(name, align)| (name.to_owned(), align)))
    }

    /// The same, where the columns are not known beforehand.
    pub(crate) fn with(headline: impl IntoIterator<Item = (String, Align)>) -> Self {
        let (names, columns) = headline.into_iter().unzip();
        Self { columns, rows: vec![names] }
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [&dyn fmt::Display; N]) {
        self.row_of(cells.iter().map(ToString::to_string));
    }

    /// The same, of as many cells as there are columns.
    pub(crate) fn row_of(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    fn lines(&self) -> impl Iterator<Item = String> + '_ {
        let width = |column: usize| self.rows.iter().map(|row| row[column].width()).max().unwrap_or(0);
        let widths: Vec<_> = (0..self.columns.len()).map(width).collect();
        self.rows.iter().map(move |row| {
            let cells = row.iter().zip(&self.columns).zip(&widths).map(|((cell, align), width)| {
                let blank = " ".repeat(width - cell.width());
                match align {
                    Align::Left => format!("{cell}{blank}"),
                    Align::Right => format!("{blank}{cell}"),
                }
            });
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_word() {
        let mut table = Table::new([("who", Align::Left), ("ops", Align::Right), ("", Align::Left)]);
        table.row([&"täglich", &7, &"x"]);
        table.row([&"b", &1234, &""]);
        table.row([&"猫", &1, &""]);
        let shown = ["who       ops", "täglich     7  x", "b        1234", "猫          1"];
        assert_eq!(table.lines().collect::<Vec<_>>(), shown);
    }
}
