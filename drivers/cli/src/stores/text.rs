//! Contents and names as people write and read them.

use antiphon::store::{BadValue, Value};
use serde_json::Value as Tree;

/// The most that is shown of a name or a content in a table or a line, in characters.
const SHOWN_MAX: usize = 60;

/// A content that was written as text: JSON if it is, else a string. Whole numbers that 64 bits don't hold are strings too,
/// lest digits are lost.
pub(crate) fn parse(text: &str) -> Result<Value, BadValue> {
    match serde_json::from_str::<Tree>(text) {
        Ok(Tree::Number(number)) if number.as_i64().is_none() && !text.contains(['.', 'e', 'E']) => Ok(text.into()),
        Ok(tree) => Value::try_from(&tree),
        Err(_) => Value::try_from(&Tree::from(text)),
    }
}

/// A content as text, of which [`parse`] makes the same. It is never empty.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::String(text) if !text.is_empty() && parse(text).as_ref() == Ok(value) => (**text).into(),
        _ => Tree::from(value).to_string(),
    }
}

/// The same in a table or a line: without anything that a terminal would obey, and cut if it is long.
pub(crate) fn shown(value: &Value) -> String {
    let text = text(value);
    match value {
        Value::String(plain) if has_control(plain) => cut(&quoted(plain)),
        _ => cut(&text),
    }
}

/// A name in a table or a line.
pub(crate) fn shown_name(name: &str) -> String {
    let is_plain = !name.is_empty() && name.trim() == name && !has_control(name) && !name.starts_with('"');
    cut(&if is_plain { name.into() } else { quoted(name) })
}

fn has_control(text: &str) -> bool {
    text.chars().any(is_control)
}

/// Also what turns the direction of the letters around it.
fn is_control(letter: char) -> bool {
    letter.is_control() || matches!(letter, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn quoted(text: &str) -> String {
    let escape = |letter: char| match letter {
        letter if is_control(letter) => format!("\\u{:04x}", u32::from(letter)),
        letter => letter.into(),
    };
    Tree::from(text).to_string().chars().map(escape).collect()
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_what_can_be_set() {
        for json in
            ["null", "true", "-7", "1.5", "\"4\"", "\"\"", "\"dog\"", "\" x\"", "\"[\"", "[1,{\"a\":2}]", "1e300"]
        {
            let value = Value::try_from(&serde_json::from_str::<Tree>(json).unwrap()).unwrap();
            assert_eq!(parse(&text(&value)), Ok(value), "{json}");
        }
        assert_eq!(parse("12345678901234567890"), Ok("12345678901234567890".into()));
        assert_eq!(parse("007"), Ok("007".into()));
    }

    #[test]
    fn terminals_are_told_nothing() {
        assert_eq!(shown(&"a\u{1b}[2J\n\u{9b}".into()), r#""a\u001b[2J\n\u009b""#);
        assert_eq!(shown_name("a\u{202e}b"), r#""a\u202eb""#);
        assert_eq!(shown_name(""), "\"\"");
        assert_eq!(shown(&"x".repeat(100).into()).chars().count(), SHOWN_MAX + 1);
    }
}
