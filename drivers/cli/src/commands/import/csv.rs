//! CSV: a table, a line a row.

use std::collections::BTreeSet;
use std::fs::File;

use antiphon::store::Value;
use csv::{ErrorKind, ReaderBuilder, StringRecord};

use super::{Bad, Take, Unit, named};
use crate::stores::{parse, shown_name};

/// Reads a file from its beginning to its end.
pub(super) fn read(file: File, table: &str, key: Option<&str>, take: &mut Take<'_>) -> Result<(), Bad> {
    let mut reader = ReaderBuilder::new().from_reader(file);
    let names = reader.headers().map_err(|error| bad(&error, 1))?.clone();
    let key = check(&names, key)?;
    let mut record = StringRecord::new();
    // As a spreadsheet counts: a field may have several lines, and their ends one byte or two.
    let mut line = 2;
    while reader.read_record(&mut record).map_err(|error| bad(&error, line))? {
        let row = match key {
            None => line.to_string(),
            Some(key) => match &record[key] {
                "" => return Err(at(line, format!("nothing in column {}", shown_name(&names[key])))),
                name => named("row", name).map_err(|error| at(line, error))?.to_owned(),
            },
        };
        let fields = names
            .iter()
            .zip(&record)
            .enumerate()
            .filter(|(index, (_, field))| Some(*index) != key && !field.is_empty());
        let cell = |(_, (name, field)): (usize, (&str, &str))| -> Result<(String, Value), Bad> {
            let value = parse(field).map_err(|error| at(line, format!("column {}: {error}", shown_name(name))))?;
            Ok((name.to_owned(), value))
        };
        let cells = fields.map(cell).collect::<Result<_, _>>()?;
        if !take(Unit::Row { table: table.to_owned(), row, cells }) {
            break;
        }
        line += 1;
    }
    Ok(())
}

/// Which column names the rows, if the names are good.
fn check(names: &StringRecord, key: Option<&str>) -> Result<Option<usize>, Bad> {
    const REMEDY: &str = "the first line names the cells, each column by another name";
    let mut seen = BTreeSet::new();
    for (index, name) in names.iter().enumerate() {
        let error = match name {
            "" => format!("column {} has no name", index + 1),
            name if !seen.insert(name) => format!("two columns have the name {}", shown_name(name)),
            name => match named("cell", name) {
                Ok(_) => continue,
                Err(error) => error,
            },
        };
        return Err(Bad { error: format!("line 1: {error}"), remedy: REMEDY });
    }
    if names.is_empty() {
        return Err(Bad { error: String::from("it is empty"), remedy: REMEDY });
    }
    let Some(key) = key else { return Ok(None) };
    match names.iter().position(|name| name == key) {
        Some(index) => Ok(Some(index)),
        None => {
            let known: Vec<_> = names.iter().map(shown_name).collect();
            let error = format!("there is no column {}, but {}", shown_name(key), known.join(", "));
            Err(Bad { error, remedy: "give --key one of these" })
        }
    }
}

fn at(line: u64, error: String) -> Bad {
    Bad { error: format!("line {line}: {error}"), remedy: "change it there: nothing was imported" }
}

fn bad(error: &csv::Error, line: u64) -> Bad {
    match error.kind() {
        ErrorKind::UnequalLengths { expected_len, len, .. } => {
            at(line, format!("{len} fields, where the first line has {expected_len}"))
        }
        ErrorKind::Utf8 { err, .. } => at(line, format!("field {} is not UTF-8", err.field() + 1)),
        ErrorKind::Io(error) => Bad { error: error.to_string(), remedy: "see whether the file may be read" },
        _ => at(line, error.to_string()),
    }
}
