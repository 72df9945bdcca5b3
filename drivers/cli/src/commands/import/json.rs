//! JSON: all of a store, row by row, however large the file is.

use std::fmt;
use std::fs::File;
use std::io::BufReader;

use antiphon::store::Value;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Visitor};
use serde_json::Value as Tree;

use super::{Bad, Take, Unit, named};
use crate::stores::shown_name;

/// Reads a file from its beginning to its end.
pub(super) fn read(file: File, take: &mut Take<'_>) -> Result<(), Bad> {
    let mut reader = serde_json::Deserializer::from_reader(BufReader::new(file));
    let mut is_over = false;
    let level = Level { at: At::Store, take, is_over: &mut is_over };
    let read = level.deserialize(&mut reader).and_then(|()| reader.end());
    match read {
        Err(error) if !is_over => Err(Bad {
            error: error.to_string(),
            remedy: "it must be {\"tables\":{TABLE:{ROW:{CELL:VALUE}}},\"values\":{NAME:VALUE}}; nothing was imported",
        }),
        _ => Ok(()),
    }
}

/// An object somewhere in the file.
struct Level<'a, 't> {
    at: At<'a>,
    take: &'a mut Take<'t>,
    /// Nobody wants more.
    is_over: &'a mut bool,
}

/// Which.
#[derive(Clone, Copy)]
enum At<'a> {
    Store,
    Tables,
    Table(&'a str),
    Row(&'a str, &'a str),
    Values,
}

impl<'de> DeserializeSeed<'de> for Level<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Level<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            At::Store => f.write_str("an object with \"tables\" and \"values\""),
            At::Tables => f.write_str("an object of tables"),
            At::Table(table) => write!(f, "an object of rows for table {}", shown_name(table)),
            At::Row(table, row) => write!(f, "an object of cells for {} {}", shown_name(table), shown_name(row)),
            At::Values => f.write_str("an object of values"),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { at, take, is_over } = self;
        let mut cells = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            let at = match at {
                At::Store => match &*key {
                    "tables" => At::Tables,
                    "values" => At::Values,
                    _ => {
                        let error = format!("{} is neither \"tables\" nor \"values\"", shown_name(&key));
                        return Err(A::Error::custom(error));
                    }
                },
                At::Tables => At::Table(named("table", &key).map_err(A::Error::custom)?),
                At::Table(table) => At::Row(table, named("row", &key).map_err(A::Error::custom)?),
                At::Row(..) => {
                    let name = named("cell", &key).map_err(A::Error::custom)?;
                    cells.push((name.to_owned(), content(name, &mut map)?));
                    continue;
                }
                At::Values => {
                    let name = named("value", &key).map_err(A::Error::custom)?;
                    let content = content(name, &mut map)?;
                    wanted(take(Unit::Value { name: name.to_owned(), content }), is_over)?;
                    continue;
                }
            };
            map.next_value_seed(Level { at, take: &mut *take, is_over: &mut *is_over })?;
        }
        match at {
            At::Row(table, row) if !cells.is_empty() => {
                wanted(take(Unit::Row { table: table.to_owned(), row: row.to_owned(), cells }), is_over)
            }
            _ => Ok(()),
        }
    }
}

fn content<'de, A: MapAccess<'de>>(name: &str, map: &mut A) -> Result<Value, A::Error> {
    let tree: Tree = map.next_value()?;
    Value::try_from(&tree).map_err(|error| A::Error::custom(format!("{}: {error}", shown_name(name))))
}

fn wanted<E: Error>(more: bool, is_over: &mut bool) -> Result<(), E> {
    *is_over = !more;
    if more { Ok(()) } else { Err(E::custom("nobody wants more")) }
}
