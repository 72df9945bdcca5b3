//! The README shows what is run. Its code runs as doctests; this keeps it equal to the example that it names.

const README: &str = include_str!("../README.md");
const EXAMPLE: &str = include_str!("../examples/poll_loop.rs");

/// An example without the comment that heads it.
fn code(example: &str) -> &str {
    &example[example.find("\nuse ").expect("it uses something") + 1..]
}

#[test]
fn the_loop_by_hand_is_the_example() {
    assert!(README.contains(&format!("```rust\n{}```\n", code(EXAMPLE))), "README.md shows another poll_loop.rs");
}

#[test]
fn the_loop_by_hand_is_short() {
    let lines = code(EXAMPLE).lines().count();
    assert!(lines < 80, "{lines} lines");
}

#[test]
fn every_link_leads_somewhere() {
    for link in README.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(link);
        assert!(path.exists(), "README.md names {link}");
    }
}
