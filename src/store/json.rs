//! JSON: arrays and objects as cells keep them, and values as JSON.
//!
//! A cell keeps one text for equal content: without white space, keys in the order of their bytes, the last of equal keys,
//! whole numbers within 64 bits as they are, and all others as the shortest text that reads as the same float, which has a
//! `.` or an `e`. It depends on nothing but this file, so that hashes are the same in all versions.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::Write;

use serde_json::Value as Tree;

use super::value::{BadValue, JSON_DEPTH_MAX, VALUE_BYTES_MAX, Value};

/// The only key of an object that stands for bytes.
const BYTES_KEY: &str = "$bytes";

/// An array or an object, as text in its one form. Cloning is cheap.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Json(Arc<str>);

impl Json {
    /// Reads an array or an object.
    ///
    /// # Errors
    /// If it is another text, too long, or nested too deep.
    pub fn parse(text: &str) -> Result<Self, BadValue> {
        if text.len() > VALUE_BYTES_MAX {
            return Err(BadValue::TooLong);
        }
        Self::try_from(&serde_json::from_str::<Tree>(text).map_err(|_| BadValue::NotJson)?)
    }

    /// Takes `text` if it is the one form of what it says.
    pub(super) fn canonical(text: &str) -> Option<Self> {
        Self::parse(text).ok().filter(|json| *json.0 == *text)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is an array, and no object.
    pub fn is_array(&self) -> bool {
        self.0.starts_with('[')
    }
}

impl TryFrom<&Tree> for Json {
    type Error = BadValue;

    fn try_from(tree: &Tree) -> Result<Self, BadValue> {
        if !(tree.is_array() || tree.is_object()) || bytes_in(tree).is_some() {
            return Err(BadValue::NotNested);
        }
        let mut text = String::new();
        write(tree, &mut text, 0)?;
        if text.len() > VALUE_BYTES_MAX { Err(BadValue::TooLong) } else { Ok(Self(text.into())) }
    }
}

impl TryFrom<&Tree> for Value {
    type Error = BadValue;

    fn try_from(tree: &Tree) -> Result<Self, BadValue> {
        match tree {
            Tree::Null => Ok(Self::Null),
            Tree::Bool(bit) => Ok(Self::Bool(*bit)),
            Tree::Number(number) => match number.as_i64() {
                Some(int) => Ok(Self::Int(int)),
                None => Ok(Self::Float(number.as_f64().ok_or(BadValue::NotFinite)?)),
            },
            Tree::String(text) => Ok(Self::String(text.as_str().into())),
            Tree::Array(_) | Tree::Object(_) => match bytes_in(tree) {
                Some(hex) => from_hex(hex).map(|bytes| Self::Bytes(bytes.into())),
                None => Json::try_from(tree).map(Self::Json),
            },
        }
        .and_then(Self::checked)
    }
}

impl From<&Json> for Tree {
    fn from(json: &Json) -> Self {
        serde_json::from_str(&json.0).unwrap_or_default() // it was read when it was made
    }
}

impl From<&Value> for Tree {
    fn from(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(bit) => (*bit).into(),
            Value::Int(int) => (*int).into(),
            Value::Float(float) => (*float).into(),
            Value::String(text) => (**text).into(),
            Value::Bytes(bytes) => {
                let hex = bytes.iter().fold(String::new(), |mut hex, byte| {
                    let _ = write!(hex, "{byte:02x}"); // a String takes everything
                    hex
                });
                Self::Object([(String::from(BYTES_KEY), Self::String(hex))].into_iter().collect())
            }
            Value::Json(json) => json.into(),
        }
    }
}

/// What stands for bytes in `tree`, if that is what it is.
fn bytes_in(tree: &Tree) -> Option<&str> {
    tree.as_object().filter(|object| object.len() == 1)?.get(BYTES_KEY)?.as_str()
}

fn from_hex(hex: &str) -> Result<Vec<u8>, BadValue> {
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(BadValue::NotHex),
    };
    let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
    let bytes = pairs.iter().map(|[high, low]| Ok(digit(*high)? << 4 | digit(*low)?)).collect();
    if rest.is_empty() { bytes } else { Err(BadValue::NotHex) }
}

fn write(tree: &Tree, out: &mut String, depth: usize) -> Result<(), BadValue> {
    match tree {
        Tree::Array(_) | Tree::Object(_) if depth == JSON_DEPTH_MAX => return Err(BadValue::TooDeep),
        Tree::Null => out.push_str("null"),
        Tree::Bool(bit) => out.push_str(if *bit { "true" } else { "false" }),
        Tree::Number(number) => match number.as_i64() {
            Some(int) => append(out, format_args!("{int}")),
            None => write_float(number.as_f64().filter(|float| float.is_finite()).ok_or(BadValue::NotFinite)?, out),
        },
        Tree::String(text) => write_string(text, out),
        Tree::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write(item, out, depth + 1)?;
            }
            out.push(']');
        }
        Tree::Object(fields) => {
            // Whether the fields come in order depends on how others in the program want serde_json to be.
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_unstable_by_key(|(key, _)| *key);
            out.push('{');
            for (index, (key, value)) in fields.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_string(key, out);
                out.push(':');
                write(value, out, depth + 1)?;
            }
            out.push('}');
        }
    }
    Ok(())
}

fn write_float(float: f64, out: &mut String) {
    let float = float + 0.0; // no -0.0
    let plain = float == 0.0 || (1e-7..1e21).contains(&float.abs());
    match plain {
        true if float % 1.0 == 0.0 => append(out, format_args!("{float}.0")),
        true => append(out, format_args!("{float}")),
        false => append(out, format_args!("{float:e}")),
    }
}

fn write_string(text: &str, out: &mut String) {
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..='\x1f' => append(out, format_args!("\\u{:04x}", u32::from(letter))),
            _ => out.push(letter),
        }
    }
    out.push('"');
}

fn append(out: &mut String, text: core::fmt::Arguments<'_>) {
    let _ = out.write_fmt(text); // a String takes everything
}
