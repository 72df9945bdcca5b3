//! Plans as text: what is printed is what is read, and what makes no sense is refused where it stands.

use antiphon_sim::plan::{PlanOf, Profile};
use antiphon_sim::replica::WriterNode;
use antiphon_sim::run::run;

type Plan = PlanOf<WriterNode>;

#[test]
fn what_is_printed_is_what_is_read() {
    for seed in 0..500 {
        let plan = Profile::varied(seed).plan::<WriterNode>(seed);
        assert_eq!(plan.to_string().parse::<Plan>().expect("it was printed"), plan);
    }
}

#[test]
fn what_makes_no_sense_is_refused_where_it_stands() {
    let heal = "heal 1s within 10s 1MB";
    for (lines, line, expected) in [
        ("", 1, "a last line"),
        ("seed 1\nseed 2", 2, "one seed"),
        ("node 0\nnode 0", 2, "each node once"),
        ("node 0\npath 0-0", 2, "a path between two nodes"),
        ("node 0\nnode 1\npath 1-0\npath 0-1", 4, "each path once"),
        ("node 0\npath 1-0", 2, "named before"),
        ("node 0\nat 2s kill 0\nheal 1s within 10s 1MB", 3, "a time not before 2s"),
        ("heal 1s within 10s 1MB\nnode 0", 2, "nothing after"),
        ("node 0 documents=a\nat 1ms node 0: append a 5B", 2, "at least 6B"),
        ("node 0\nat 1ms clock 0 +1s,+5", 2, "how far it is ahead"),
    ] {
        let text =
            if lines.contains("heal") || lines.is_empty() { lines.to_owned() } else { format!("{lines}\n{heal}") };
        let error = text.parse::<Plan>().expect_err(lines).to_string();
        assert!(error.starts_with(&format!("line {line} ")) && error.contains(expected), "{lines:?}: {error}");
    }
}

/// Nodes that were left out leave gaps, and the others keep their names.
#[test]
fn laws_call_nodes_and_paths_what_the_plan_calls_them() {
    let plan = "node 3 documents=a\nnode 7 documents=a\npath 7-3\nat 1ms node 7: append a 6B\nheal 2ms within 1ms 0B";
    let violation = run::<WriterNode>(&plan.parse().expect("a plan")).outcome.expect_err("it has no time to heal");
    assert_eq!(
        violation.what,
        "1ms after everything healed, node 7 was not told that it is in step on path 7-3 with a"
    );
}
