//! What is demanded of a command that can't do what it was told.

use serde_json::Value;

use super::{Ended, run};

/// One line with a remedy, and with `--json` one object with the same.
pub(crate) fn demand(arguments: &[&str], code: i32, kind: &str, words: &[&str]) {
    let plain = run(arguments, "");
    nothing_claimed(&plain, arguments);
    line(&plain, code, words);
    let json = run(&[arguments, &["--json"]].concat(), "");
    nothing_claimed(&json, arguments);
    assert_eq!(json.code, Some(code), "{arguments:?}: {}", json.stderr);
    let object: Value = serde_json::from_str(&json.stderr).unwrap_or_else(|_| panic!("{arguments:?}: {}", json.stderr));
    assert_eq!(object.as_object().expect("an object").len(), 3, "{object}");
    assert_eq!(object["code"], kind, "{arguments:?}: {object}");
    let [error, remedy] = ["error", "remedy"].map(|part| object[part].as_str().expect("text").to_owned());
    assert!(!error.is_empty() && !remedy.is_empty(), "{object}");
}

/// One line on stderr that has these words, and the exit code.
pub(crate) fn line(ended: &Ended, code: i32, words: &[&str]) {
    assert_eq!(ended.code, Some(code), "{}", ended.stderr);
    let line = ended.stderr.strip_suffix('\n').unwrap_or_else(|| panic!("no line: {ended:?}"));
    assert!(line.starts_with("antiphon: ") && line.contains("; ") && !line.contains('\n'), "{line}");
    for word in words {
        assert!(line.contains(word), "{word:?} is not in: {line}");
    }
}

/// What was found until it failed is told, and nothing else.
fn nothing_claimed(ended: &Ended, arguments: &[&str]) {
    let result = String::from_utf8_lossy(&ended.stdout);
    let empty = result.is_empty() || result.contains("0 ops appended") || result.contains("\"appended\":0");
    assert!(empty || result.contains("no ") || result.contains("\"in_step\":false"), "{arguments:?}: {result}");
}
