//! The demo ends in step whatever the seed, and its last line says so.

mod common;

use common::run;
use serde_json::Value;

#[test]
fn seeds_end_in_step() {
    for seed in 0..3 {
        let told = run(&["demo", "--seed", &seed.to_string()], "").good();
        let last = told.lines().last().expect("there is a last line");
        let heads = last.strip_prefix("in step: 4 replicas, ").and_then(|rest| rest.split_once(" ops, heads "));
        let (ops, heads) = heads.unwrap_or_else(|| panic!("seed {seed}: {last}"));
        assert!(ops.parse::<u64>().is_ok_and(|ops| ops > 400), "seed {seed}: {last}");
        assert!(heads.len() == 16 && heads.bytes().all(|digit| digit.is_ascii_hexdigit()), "seed {seed}: {last}");
        assert!(told.lines().any(|line| line.contains("SIGKILL")), "{told}");
        let hash = |name| told.lines().find_map(|line| line.strip_prefix(&format!("store {name}: content hash ")));
        assert!(hash("fido").is_some_and(|hash| hash.len() == 32) && hash("fido") == hash("felix"), "{told}");
        for pet in ["fido           woof   dog", "felix  black          cat"] {
            assert!(told.lines().any(|line| line == pet), "{pet:?} is not in {told}");
        }
    }
}

#[test]
fn json_tells_the_same() {
    let told = run(&["demo", "--seed", "7", "--json"], "").good();
    let told: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let (outcome, acts) = told.split_last().expect("there is a last line");
    for pair in acts.windows(2) {
        assert!(pair[0]["at_ms"].as_u64() <= pair[1]["at_ms"].as_u64(), "{pair:?}");
    }
    let killed = acts.iter().find(|act| act["act"].as_str().is_some_and(|act| act.contains("SIGKILL")));
    let ops = &killed.expect("the server is killed")["ops"];
    assert!(ops["server"].as_u64() < ops["a"].as_u64(), "they wrote on while it was gone: {ops}");
    let pets = &acts.last().expect("there are acts")["pets"]["content"]["tables"]["pets"];
    assert_eq!((&pets["fido"]["species"], &pets["felix"]["species"]), (&"dog".into(), &"cat".into()));
    assert_eq!((&outcome["in_step"], &outcome["replicas"]), (&true.into(), &4.into()));
    assert_eq!(outcome["heads"].as_str().expect("text").len(), 16);
    let last = &acts.last().expect("there are acts")["ops"];
    for replica in ["server", "a", "b", "c"] {
        assert_eq!(last[replica], outcome["ops"], "{last}");
    }
}
