//! What a cell holds.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cmp::Ordering;
use core::fmt;

use bytes::Bytes;

use super::json::Json;

/// The longest name of a table, row, cell or value, in bytes. Every text up to it is a name, also the empty one.
pub const NAME_BYTES_MAX: usize = 1024;
/// The longest string, byte string or JSON text in a cell, in bytes.
pub const VALUE_BYTES_MAX: usize = 1 << 20;
/// How deep arrays and objects in a cell may be nested.
pub const JSON_DEPTH_MAX: usize = 64;

/// The content of a cell, or of a value. Cloning is cheap.
///
/// Values of different kinds are different, also 1 and 1.0. They have a total order, which means nothing, but is the same
/// everywhere: it decides between two that were written at the same stamp.
#[derive(Clone, Debug)]
pub enum Value {
    /// Nothing, but written: a cell that is null is there.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number. NaN and infinities are refused, and -0.0 is stored as 0.0.
    Float(f64),
    /// Text.
    String(Arc<str>),
    /// Bytes. In JSON: `{"$bytes":"00ff"}`.
    Bytes(Arc<[u8]>),
    /// An array or an object.
    Json(Json),
}

impl Value {
    /// The value as it is stored.
    ///
    /// # Errors
    /// If it is too long, or a float that is not a number.
    pub(super) fn checked(self) -> Result<Self, BadValue> {
        let len = match &self {
            Self::Null | Self::Bool(_) | Self::Int(_) => 0,
            Self::Float(float) if !float.is_finite() => return Err(BadValue::NotFinite),
            Self::Float(float) => return Ok(Self::Float(float + 0.0)), // -0.0 + 0.0 is 0.0
            Self::String(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
            Self::Json(json) => json.as_str().len(),
        };
        if len > VALUE_BYTES_MAX { Err(BadValue::TooLong) } else { Ok(self) }
    }

    /// Appends what tells this value from all others, for hashing.
    pub(super) fn weigh(&self, out: &mut Vec<u8>) {
        out.push(self.rank());
        match self {
            Self::Null => {}
            Self::Bool(bit) => out.push((*bit).into()),
            Self::Int(int) => out.extend_from_slice(&int.to_le_bytes()),
            Self::Float(float) => out.extend_from_slice(&float.to_bits().to_le_bytes()),
            Self::String(text) => out.extend_from_slice(text.as_bytes()),
            Self::Bytes(bytes) => out.extend_from_slice(bytes),
            Self::Json(json) => out.extend_from_slice(json.as_str().as_bytes()),
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Null => 0,
            Self::Bool(_) => 1,
            Self::Int(_) => 2,
            Self::Float(_) => 3,
            Self::String(_) => 4,
            Self::Bytes(_) => 5,
            Self::Json(_) => 6,
        }
    }
}

impl Ord for Value {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => a.cmp(b),
            (Self::Int(a), Self::Int(b)) => a.cmp(b),
            (Self::Float(a), Self::Float(b)) => a.total_cmp(b),
            (Self::String(a), Self::String(b)) => a.cmp(b),
            (Self::Bytes(a), Self::Bytes(b)) => a.cmp(b),
            (Self::Json(a), Self::Json(b)) => a.cmp(b),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Value {}

macro_rules! from {
    ($($type:ty: $value:ident => $into:expr;)*) => {
        $(impl From<$type> for Value {
            fn from($value: $type) -> Self {
                $into
            }
        })*
    };
}

from! {
    bool: value => Self::Bool(value);
    i64: value => Self::Int(value);
    i32: value => Self::Int(value.into());
    u32: value => Self::Int(value.into());
    f64: value => Self::Float(value);
    &str: value => Self::String(value.into());
    alloc::string::String: value => Self::String(value.into());
    &[u8]: value => Self::Bytes(value.into());
    Vec<u8>: value => Self::Bytes(value.into());
    Bytes: value => Self::Bytes(value[..].into());
    Json: value => Self::Json(value);
}

/// Why something can't be the content of a cell.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum BadValue {
    /// A number is NaN or infinite.
    NotFinite,
    /// It is longer than [`VALUE_BYTES_MAX`].
    TooLong,
    /// It is nested deeper than [`JSON_DEPTH_MAX`].
    TooDeep,
    /// It is not JSON.
    NotJson,
    /// It is neither an array nor an object, which cells hold as JSON; or an object of the form `{"$bytes":"00ff"}`,
    /// which stands for bytes. Use the value's own kind.
    NotNested,
    /// `{"$bytes":…}` without hexadecimal digits, two a byte and in lower case.
    NotHex,
}

impl fmt::Display for BadValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFinite => f.write_str("a number in a cell can't be NaN or infinite"),
            Self::TooLong => write!(f, "a cell holds at most {VALUE_BYTES_MAX} bytes"),
            Self::TooDeep => write!(f, "arrays and objects in a cell are nested at most {JSON_DEPTH_MAX} deep"),
            Self::NotJson => f.write_str("the text is not JSON"),
            Self::NotNested => {
                f.write_str("as JSON a cell holds arrays and objects; all else, bytes too, has its own kind")
            }
            Self::NotHex => f.write_str("\"$bytes\" wants two hexadecimal digits a byte, in lower case"),
        }
    }
}

impl core::error::Error for BadValue {}
