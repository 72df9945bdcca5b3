//! Which paths are served.

use std::fmt;
use std::str::FromStr;

/// Paths of one form: segments as they are, `{name}` for any one segment, and `*` at the end for whatever is left.
///
/// ```
/// let pattern: antiphon_websocket::Pattern = "/rooms/{room}/sync".parse()?;
/// assert_eq!(pattern.parameters("/rooms/blue/sync"), Some(vec![("room".into(), "blue".into())]));
/// assert_eq!(pattern.parameters("/rooms/sync"), None);
/// # Ok::<(), antiphon_websocket::BadPattern>(())
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pattern {
    segments: Vec<Segment>,
    open: bool,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Segment {
    Fixed(String),
    Parameter(String),
}

/// Why a text is not a [`Pattern`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BadPattern;

impl fmt::Display for BadPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a path pattern begins with /, names parameters as whole segments like {room}, and has * only at its end",
        )
    }
}

impl std::error::Error for BadPattern {}

impl Pattern {
    /// The path `/` alone.
    pub fn root() -> Self {
        Self { segments: vec![Segment::Fixed(String::new())], open: false }
    }

    /// The parameters of a path, as they stand in it, if it fits.
    pub fn parameters(&self, path: &str) -> Option<Vec<(String, String)>> {
        let mut found = Vec::new();
        let mut parts = path.strip_prefix('/')?.split('/');
        for segment in &self.segments {
            let part = parts.next()?;
            match segment {
                Segment::Fixed(fixed) if fixed == part => {}
                Segment::Parameter(name) if !part.is_empty() => found.push((name.clone(), part.to_owned())),
                Segment::Fixed(_) | Segment::Parameter(_) => return None,
            }
        }
        (self.open || parts.next().is_none()).then_some(found)
    }
}

impl FromStr for Pattern {
    type Err = BadPattern;

    fn from_str(text: &str) -> Result<Self, BadPattern> {
        let mut parts: Vec<_> = text.strip_prefix('/').ok_or(BadPattern)?.split('/').collect();
        let open = parts.pop_if(|last| *last == "*").is_some();
        let segments = parts.into_iter().map(|part| {
            let inner = part.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
            let plain = |text: &str| !text.contains(['{', '}', '*', '?', '#']);
            match inner {
                Some(name) if !name.is_empty() && plain(name) => Ok(Segment::Parameter(name.to_owned())),
                None if plain(part) => Ok(Segment::Fixed(part.to_owned())),
                _ => Err(BadPattern),
            }
        });
        Ok(Self { segments: segments.collect::<Result<_, _>>()?, open })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for segment in &self.segments {
            match segment {
                Segment::Fixed(fixed) => write!(f, "/{fixed}")?,
                Segment::Parameter(name) => write!(f, "/{{{name}}}")?,
            }
        }
        f.write_str(if self.open { "/*" } else { "" })
    }
}
