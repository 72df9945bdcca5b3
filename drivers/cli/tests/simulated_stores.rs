//! `antiphon sim --stores`: seeds and plans of replicas with stores, run, shrunk and drawn as those of replicas are.

mod common;

use std::fs;

use common::demand::demand;
use common::{Scratch, run};

const BREAKS: &str = "\
seed 42
node 0 documents=pets
node 1 documents=pets
path 1-0 latency=20ms
at 100ms node 1: write pets a/b/c=1 a/b/d=2
at 110ms node 0: write pets a/b/c=3
at 120ms node 0: write pets a-
heal 130ms within 1ms 400kB
";

#[test]
fn the_same_seeds_do_the_same_on_any_number_of_threads() {
    let seeds = ["sim", "--stores", "--varied", "--seeds", "0..60", "--json", "--jobs"];
    let [one, two] = ["1", "2"].map(|jobs| run(&[&seeds[..], &[jobs]].concat(), "").object());
    assert_eq!((&one["seeds"], &one["converged"]), (&60.into(), &60.into()));
    assert_eq!(one["trace_hash"], two["trace_hash"]);
    assert_ne!(run(&["sim", "--varied", "--seeds", "0..60", "--json"], "").object()["trace_hash"], one["trace_hash"]);
}

#[test]
fn a_plan_that_breaks_a_law_is_made_small_and_drawn() {
    let scratch = Scratch::new();
    let (page, plan) = (scratch.name("out.html"), scratch.name("plan.txt"));
    fs::write(&plan, BREAKS).expect("written");
    let ended = run(&["sim", "--stores", "--plan", &plan, "--shrink", "--report", &page, "--json"], "");
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let told: serde_json::Value = serde_json::from_slice(&ended.stdout).expect("one object");
    let failed = &told["failed"][0];
    assert_eq!(failed["command"], format!("antiphon sim --stores --plan {plan}"));
    let small = failed["plan"].as_str().expect("a plan");
    assert!(small.matches("write").count() < 3 && small.contains("within 1ms"), "{small}");
    assert!(fs::read_to_string(&page).expect("it is drawn").contains("--stores --plan"));
    // What was printed is run again.
    fs::write(&plan, small).expect("written");
    assert_eq!(run(&["sim", "--stores", "--plan", &plan], "").code, Some(1));
    fs::write(&plan, BREAKS.replace("within 1ms", "within 60s")).expect("written");
    run(&["sim", "--stores", "--plan", &plan], "").good();
}

#[test]
fn plans_of_other_replicas_are_told_from_those_of_stores() {
    let scratch = Scratch::new();
    let plan = scratch.name("plan.txt");
    fs::write(&plan, BREAKS).expect("written");
    demand(&["sim", "--plan", &plan], 2, "usage", &["line 5", "append notes", "antiphon sim --seed 0 --print"]);
    fs::write(&plan, BREAKS.replace("write pets a/b/c=3", "append pets 20B")).expect("written");
    demand(&["sim", "--stores", "--plan", &plan], 2, "usage", &["line 6", "write notes", "sim --stores --seed 0"]);
}
