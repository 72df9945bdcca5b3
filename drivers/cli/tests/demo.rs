//! The demo ends in step whatever the seed, tells so in its last line, and fails as commands do.

use std::process::{Command, Output, Stdio};

fn antiphon(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_antiphon")).args(arguments).output().expect("the binary runs")
}

fn lines(output: &Output) -> Vec<String> {
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout.clone()).expect("the output is text").lines().map(str::to_owned).collect()
}

#[test]
fn every_seed_ends_in_step() {
    for seed in 0..40 {
        let told = lines(&antiphon(&["demo", "--seed", &seed.to_string()]));
        let last = told.last().expect("there is a last line");
        let heads = last.strip_prefix("in step: 3 replicas, 96 ops, heads ");
        let heads = heads.unwrap_or_else(|| panic!("seed {seed}: {last}"));
        assert!(heads.len() == 16 && heads.bytes().all(|digit| digit.is_ascii_hexdigit()), "seed {seed}: {last}");
        assert!(told.len() >= 12, "a headline, and a line an act: {told:#?}");
    }
}

#[test]
fn a_seed_is_a_run() {
    let [first, again, other] = ["7", "7", "8"].map(|seed| antiphon(&["demo", "--seed", seed]).stdout);
    assert_eq!(first, again);
    assert_ne!(first, other);
}

#[test]
fn json_tells_the_same() {
    let told = lines(&antiphon(&["demo", "--seed", "7", "--json"]));
    let told: Vec<serde_json::Value> = told.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let (outcome, acts) = told.split_last().expect("there is a last line");
    for pair in acts.windows(2) {
        assert!(pair[0]["at_us"].as_u64() <= pair[1]["at_us"].as_u64(), "{pair:?}");
        assert!(pair[0]["frames"]["lost"].as_u64() <= pair[1]["frames"]["lost"].as_u64(), "{pair:?}");
    }
    let lossy = &acts.last().expect("there are acts")["frames"];
    for what in ["lost", "duplicated", "corrupted"] {
        assert!(lossy[what].as_u64() > Some(0), "the network was too kind to show anything: {lossy}");
    }
    let power_loss = acts.windows(2).find(|pair| pair[1]["act"].as_str().is_some_and(|act| act.contains("power")));
    let [before, after] = power_loss.expect("c loses power") else { unreachable!("windows of two") };
    assert!(before["ops"][2].as_u64() > after["ops"][2].as_u64(), "a loss of power costs ops: {before} {after}");
    assert_eq!((&outcome["in_step"], &outcome["replicas"], &outcome["ops"]), (&true.into(), &3.into(), &96.into()));
    let last = lines(&antiphon(&["demo", "--seed", "7"])).pop().expect("there is a last line");
    assert!(last.ends_with(outcome["heads"].as_str().expect("a text")), "{last}");
}

#[test]
fn wrong_usage_is_told_and_exits_with_2() {
    for arguments in [&["demo", "--seed", "x"][..], &["demo", "--speed"], &["perform"], &[]] {
        let output = antiphon(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn a_reader_that_leaves_is_no_panic() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_antiphon"));
    let mut child = command.arg("demo").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("the binary ends");
    assert!(output.stderr.is_empty(), "{output:?}");
}
