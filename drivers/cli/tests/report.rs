//! `antiphon sim --report`: a page of one run, and one clear line where there can be none.

mod common;

use std::fs;

use common::demand::demand;
use common::{Scratch, run};
use serde_json::Value;

/// What the page at this path is drawn from.
fn data(path: &str) -> Value {
    let page = fs::read_to_string(path).expect("the page is there");
    assert!(page.starts_with("<!doctype html>") && page.trim_end().ends_with("</html>"));
    let (_, rest) = page.split_once("type=\"application/json\">").expect("it has data");
    let (json, _) = rest.split_once("</script>").expect("they end");
    serde_json::from_str(json).expect("they are JSON")
}

const BREAKS: &str = "\
seed 42
node 0 documents=notes,a</script>b
node 1 documents=notes,a</script>b
path 1-0 latency=20ms
at 100ms node 1: append notes 20B
at 110ms node 0: append notes 20B
heal 130ms within 1ms 400kB
";

#[test]
fn a_seed_is_drawn_with_the_command_that_runs_it_again() {
    let scratch = Scratch::new();
    let page = scratch.name("out.html");
    let told = run(&["sim", "--seed", "7", "--replicas", "4", "--report", &page, "--json"], "").object();
    let data = data(&page);
    assert_eq!((&data["title"], &data["command"]), (&"seed 7".into(), &"antiphon sim --seed 7 --replicas 4".into()));
    assert_eq!(data["frames"].as_array().map(Vec::len).map(Value::from).as_ref(), Some(&told["frames_sent"]));
    assert_eq!(data["broken"], Value::Null);
    assert!(data["lanes"].as_array().is_some_and(|lanes| lanes.len() >= 4));
    assert!(data["plans"][0][1].as_str().is_some_and(|plan| plan.starts_with("seed ")));
    // Not drawn, the run is the same.
    assert_eq!(
        run(&["sim", "--seed", "7", "--replicas", "4", "--json"], "").object()["trace_hash"],
        told["trace_hash"]
    );
}

#[test]
fn a_plan_that_breaks_a_law_is_drawn_and_still_fails() {
    let scratch = Scratch::new();
    let (page, plan) = (scratch.name("out.html"), scratch.name("plan.txt"));
    fs::write(&plan, BREAKS).expect("written");
    for shrinks in [false, true] {
        let flags = ["sim", "--plan", &plan, "--report", &page, "--shrink"];
        let ended = run(&flags[..if shrinks { 6 } else { 5 }], "");
        assert_eq!(ended.code, Some(1), "{ended:?}");
        let data = data(&page);
        assert_eq!(data["broken"][0], "converges");
        assert_eq!(data["end"], data["broken"][2]);
        let command = format!("antiphon sim --plan {plan}{}", if shrinks { " --shrink" } else { "" });
        assert_eq!(data["command"], command);
        let steps = data["plans"][0][1].as_str().map(|plan| plan.matches("append").count());
        assert!(if shrinks { steps < Some(2) } else { steps == Some(2) }, "{steps:?}");
    }
}

#[test]
fn names_of_documents_are_data() {
    let scratch = Scratch::new();
    let (page, plan) = (scratch.name("out.html"), scratch.name("plan.txt"));
    fs::write(&plan, BREAKS.replace("within 1ms", "within 60s")).expect("written");
    run(&["sim", "--plan", &plan, "--report", &page], "").good();
    assert!(data(&page)["documents"].as_array().is_some_and(|names| names.contains(&"a</script>b".into())));
}

#[test]
fn where_it_can_t_be_written_one_line_says_so() {
    let scratch = Scratch::new();
    let nowhere = scratch.name("missing/out.html");
    demand(&["sim", "--seed", "1", "--report", &nowhere], 1, "report", &["out.html", "can't be written", "--report"]);
    demand(&["sim", "--seed", "1", "--report"], 2, "usage", &["--report"]);
    // There is no picture of many runs.
    let page = scratch.name("out.html");
    for many in [&["--seeds", "0..2"][..], &[]] {
        demand(&[&["sim", "--report", &page], many].concat(), 2, "usage", &["--seed"]);
    }
    assert!(!fs::exists(&page).expect("can be asked"));
}
