//! `--record` and `antiphon replay`: what processes did is run again and comes to the same, also if they were killed; what
//! is no recording, not whole, or not to be run again is told so.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use antiphon::codes::Code;
use antiphon::op::{ReplicaId, Timeline};
use antiphon::session::{Config, Input, Local, Output};
use antiphon::{Instant as Moment, Machine, Session};
use antiphon_recorder::session::Setup;
use antiphon_recorder::{Options, Recorder, Ring};
use common::{Ended, PATIENCE, Scratch, Server, antiphon, run, text};
use serde_json::Value;

const TOKEN: &str = "xQ7-0secret0-Zp4";

/// A recorded server, a recorded client that has appended three lines there, and both recordings' directories.
fn recorded(scratch: &Scratch, more: &[&str]) -> (Server, String, String) {
    let (trace, client) = (scratch.name("trace"), scratch.name("client"));
    let data = scratch.name("server");
    let server = Server::with(&[&["--data", &data, "--token", TOKEN, "--record", &trace], more].concat());
    let arguments =
        [&["append", "notes", "--connect", &server.url, "--token", TOKEN, "--record", &client], more].concat();
    run(&arguments, "the first line\nthe second line\nthe third line\n").good();
    (server, trace, client)
}

/// The objects that `antiphon replay --json` prints: events, and then the summary.
fn replay(arguments: &[&str]) -> (Vec<Value>, Value, Ended) {
    let ended = run(&[&["replay", "--json"], arguments].concat(), "");
    let stdout = String::from_utf8(ended.stdout.clone()).expect("text");
    let mut objects: Vec<Value> = stdout.lines().map(|line| serde_json::from_str(line).expect("an object")).collect();
    let summary = objects.pop().unwrap_or_default();
    (objects, summary, ended)
}

fn failed(ended: &Ended, code: &str) {
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    let error: Value = serde_json::from_str(&ended.stderr).expect("one object");
    assert_eq!(error["code"], code, "{error}");
}

fn files(directory: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        fs::read_dir(directory).expect("it is there").map(|entry| entry.expect("it can be read").path()).collect();
    files.sort();
    files
}

#[test]
fn a_server_and_its_client_are_replayed() {
    let scratch = Scratch::new();
    let (server, trace, client) = recorded(&scratch, &[]);
    server.terminate().good();
    for directory in [&trace, &client] {
        let (events, summary, ended) = replay(&[directory]);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
        assert_eq!(summary["events"], events.len());
        assert_eq!((&summary["same"], &summary["replayed"]), (&summary["events"], &Value::Bool(true)));
        assert_eq!((&summary["differs"], &summary["whole"]), (&Value::Null, &Value::Bool(true)));
        assert_eq!(summary["end"], "it ends in order");
        for (number, event) in events.iter().enumerate() {
            assert_eq!(event["event"], number);
            assert!(event["outputs"].is_array() && event["differs"] == false, "{event}");
        }
        let kinds: Vec<_> = events.iter().map(|event| event["kind"].as_str().expect("a word")).collect();
        for kind in ["Connected", "Hello", "Welcome", "Open", "Storage", "Disconnected"] {
            assert!(kinds.contains(&kind), "{kind} is not among {kinds:?}");
        }
        for file in files(directory) {
            let bytes = fs::read(&file).expect("it can be read");
            let part = |part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
            assert!(!part(b"0secret0") && !part(b"xQ7-") && !part(b"-Zp4"), "the token is in {}", file.display());
            assert!(part(b"the second line"), "bodies are");
        }
    }
}

#[test]
fn a_server_that_was_killed_is_replayed() {
    let scratch = Scratch::new();
    let (server, trace, _) = recorded(&scratch, &[]);
    // What is in the trace before the kill; the last 20 ms need not be.
    let begun = Instant::now();
    while !fs::read(&files(&trace)[0]).expect("it is there").windows(15).any(|window| window == b"the second line") {
        assert!(begun.elapsed() < PATIENCE, "it is written soon");
        std::thread::sleep(Duration::from_millis(5));
    }
    let address = server.address().to_owned();
    server.process.kill();
    let (events, summary, ended) = replay(&[&trace]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    assert!(events.len() > 10);
    assert_eq!((&summary["same"], &summary["differs"]), (&summary["events"], &Value::Null));
    assert!(summary["end"].as_str().expect("words").starts_with("it breaks off in"), "{summary}");

    // Started again, it is another recording in the same directory.
    let data = scratch.name("server");
    let again = Server::listening(&address, &["--data", &data, "--token", TOKEN, "--record", &trace]);
    again.terminate().good();
    let text = run(&["replay", &trace, "--quiet"], "").good();
    assert_eq!(text.lines().filter(|line| line.ends_with("it ends in order")).count(), 1, "{text}");
    assert_eq!(text.matches("each came to the same").count(), 2, "{text}");
    let (_, summary, _) = replay(&[&trace, "--run", "2"]);
    assert_eq!(summary["run"], 2);
    let wrong = run(&["replay", &trace, "--run", "3"], "");
    assert_eq!(wrong.code, Some(2), "{}", wrong.stderr);
}

#[test]
fn only_what_is_asked_for_is_told() {
    let scratch = Scratch::new();
    let (server, trace, _) = recorded(&scratch, &[]);
    let other = ["append", "other", "--connect", &server.url, "--token", TOKEN];
    run(&other, "elsewhere\n").good();
    server.terminate().good();
    let (all, _, _) = replay(&[&trace]);
    let (between, summary, _) = replay(&[&trace, "--from", "5", "--to", "9"]);
    assert_eq!(between, all[5..9]);
    assert_eq!(summary["same"], all.len(), "all of it is run again");

    let (of_document, _, _) = replay(&[&trace, "--document", "other"]);
    assert!(!of_document.is_empty() && of_document.len() < all.len());
    for event in &of_document {
        let lines = std::iter::once(event).chain(event["outputs"].as_array().expect("it was run again"));
        assert!(lines.clone().any(|line| line["document"] == "other"), "{event}");
    }
    let acknowledged = of_document.iter().flat_map(|event| event["outputs"].as_array().expect("it was run again"));
    assert!(acknowledged.clone().any(|output| output["kind"] == "Ack"), "numbers are told as names");

    let (of_session, _, _) = replay(&[&trace, "--session", "1"]);
    let frames = of_session.iter().filter(|event| event["what"] == "received");
    assert!(frames.clone().count() > 3 && frames.clone().all(|event| event["link"] == 1));

    let at = all[7]["at_us"].as_u64().expect("a time");
    let time = format!("{}.{:06}s", at / 1_000_000, at % 1_000_000);
    let (late, _, _) = replay(&[&trace, "--from", &time]);
    assert!(late.iter().all(|event| event["at_us"].as_u64() >= Some(at)) && late.len() >= all.len() - 8);

    for wrong in [["--from", "soon"], ["--to", "1.5"], ["--document", "@"], ["--session", "x"]] {
        assert_eq!(run(&["replay", &trace, wrong[0], wrong[1]], "").code, Some(2), "{wrong:?}");
    }
}

#[test]
fn a_redacted_recording_is_told_and_not_replayed() {
    let scratch = Scratch::new();
    let (server, trace, client) = recorded(&scratch, &["--record-redacted"]);
    server.terminate().good();
    for directory in [&trace, &client] {
        let (events, summary, ended) = replay(&[directory]);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert_eq!((&summary["replayed"], &summary["same"]), (&Value::Bool(false), &Value::from(0)));
        assert_eq!(summary["not_replayed"], "its bodies were left out when it was recorded");
        let outputs = events.iter().flat_map(|event| event["outputs"].as_array().expect("what was sent"));
        assert!(outputs.clone().count() > 2 && outputs.clone().all(|output| output["what"] == "sent"));
        let left_out: u64 = events.iter().map(|event| event["left_out"].as_u64().unwrap_or(0)).sum();
        assert_eq!(left_out, 43, "the bytes of three lines");
        for file in files(directory) {
            let bytes = fs::read(&file).expect("it can be read");
            assert!(!bytes.windows(6).any(|window| window == b"second" || window == b"secret"));
        }
    }
}

/// Changes a byte of a file.
fn flip(file: &Path, place: usize) {
    let mut bytes = fs::read(file).expect("it can be read");
    bytes[place] ^= 1;
    fs::write(file, bytes).expect("it can be written");
}

#[test]
fn what_is_damaged_or_foreign_is_told() {
    let scratch = Scratch::new();
    let (server, trace, _) = recorded(&scratch, &[]);
    server.terminate().good();
    let file = files(&trace).remove(0);
    let whole = fs::read(&file).expect("it can be read");
    let (all, _, _) = replay(&[text(&file)]);

    // In the middle.
    flip(&file, whole.len() / 2);
    let (events, summary, ended) = replay(&[&trace]);
    failed(&ended, "trace_damaged");
    assert!(!events.is_empty() && events[..] == all[..events.len()]);
    assert_eq!(summary["same"], events.len(), "what is whole is run again");
    // The number of the format.
    fs::write(&file, &whole).expect("it can be written");
    flip(&file, 8);
    let (_, _, ended) = replay(&[&trace]);
    failed(&ended, "trace_format");
    // What it begins with.
    flip(&file, 0);
    failed(&replay(&[&trace]).2, "trace_foreign");
    // Nothing, and nowhere.
    fs::remove_file(&file).expect("it is there");
    failed(&replay(&[&trace]).2, "trace_missing");
    failed(&replay(&[&scratch.name("nowhere")]).2, "trace_inaccessible");
    // One clear line for people.
    let ended = run(&["replay", &scratch.name("nowhere")], "");
    assert_eq!((ended.code, ended.stderr.lines().count()), (Some(1), 1), "{}", ended.stderr);
}

#[test]
fn a_directory_that_cannot_be_recorded_in_is_refused() {
    let scratch = Scratch::new();
    let file = scratch.name("file");
    fs::write(&file, "").expect("it can be written");
    let ended = run(&["append", "notes", "--data", &scratch.name("data"), "--record", &file, "--json"], "one\n");
    failed(&ended, "record");
    let ended = run(&["append", "notes", "--data", &scratch.name("data"), "--record-redacted"], "one\n");
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(antiphon(["replay"]).output().expect("it runs").status.code() == Some(2));
}

#[test]
fn a_recording_is_drawn() {
    let scratch = Scratch::new();
    let page = scratch.name("out.html");
    for flags in [&[][..], &["--record-redacted"]] {
        let (server, trace, client) = recorded(&scratch, flags);
        server.terminate().good();
        for directory in [&trace, &client] {
            let (events, _, _) = replay(&[directory, "--html", &page]);
            let lines = events
                .iter()
                .flat_map(|event| [event].into_iter().chain(event["outputs"].as_array().expect("they are known")));
            let told = lines.filter(|line| matches!(line["what"].as_str(), Some("sent" | "received"))).count();
            let text = fs::read_to_string(&page).expect("the page is there");
            let (_, rest) = text.split_once("type=\"application/json\">").expect("it has data");
            let data: Value = serde_json::from_str(rest.split_once("</script>").expect("they end").0).expect("JSON");
            let frames = data["frames"].as_array().expect("an array");
            assert!(told > 6 && frames.len() == told, "{told} and {}", frames.len());
            // To the replica's own line and from it.
            assert!(frames.iter().all(|frame| (frame[0] == 0) != (frame[1] == 0)), "{frames:?}");
            assert!(data["documents"].as_array().is_some_and(|names| names.contains(&"notes".into())), "{data}");
            assert_eq!(data["broken"], Value::Null);
            assert_eq!(text.contains("the first line"), flags.is_empty(), "bodies that were left out are not drawn");
            // What is not told is not drawn.
            run(&["replay", directory, "--html", &page, "--session", "999"], "").good();
            assert!(fs::read_to_string(&page).expect("the page is there").contains("\"frames\":[]"));
            fs::remove_dir_all(directory).expect("it is there");
        }
    }
}

/// Who drives sessions by hand records them beside the other recordings of a directory.
#[test]
fn a_session_by_itself_is_replayed() {
    let scratch = Scratch::new();
    let trace = scratch.name("trace");
    let local = |number: u8| Local {
        replica: ReplicaId([number; 16]),
        timeline: Timeline::new(number.into()),
        previous: None,
        nonce: number.into(),
        token: Some(TOKEN.into()),
    };
    let (now, config) = (Moment::ZERO, Config::default());
    for redacted in [false, true] {
        let mut other = Session::new(now, config.clone(), local(2));
        let ring = Ring::new(&trace).open().expect("the directory is new");
        let setup = Setup { now, config: config.clone(), local: local(1) };
        let mut session: Recorder<Session> = Recorder::new(setup, ring, Options { redacted, began: 0 });
        while let Some(Output::Transmit(frame)) = other.poll() {
            session.handle(now, Input::Received(frame)).expect("frames are never misuse");
        }
        let close = Input::Goodbye { code: Code::SHUTDOWN, reason: "enough".into(), retry_after: None };
        for input in [Input::Authenticated(Ok(())), close] {
            session.handle(now, input).expect("it was asked");
        }
        session.finish();
    }
    let (events, summary, ended) = replay(&[&trace, "--run", "1"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    let kinds: Vec<_> = events.iter().map(|event| event["kind"].as_str().expect("a word")).collect();
    assert_eq!(kinds, ["Hello", "Answer", "Goodbye"]);
    let wanted = events[0]["outputs"].as_array().expect("it was run again").iter().map(|line| &line["kind"]);
    assert!(wanted.eq(["Hello", "Ask"]), "{}", events[0]);
    assert_eq!((&summary["same"], &summary["replayed"]), (&Value::from(3), &Value::Bool(true)));
    let text = run(&["replay", &trace, "--run", "2"], "").good();
    assert!(text.contains("told, but not replayed: its bodies were left out"), "{text}");
    for file in files(&trace) {
        let bytes = fs::read(&file).expect("it can be read");
        assert!(!bytes.windows(6).any(|window| window == b"secret"), "the token is in {}", file.display());
    }
    for flags in [["--html", "out.html"], ["--session", "1"]] {
        let ended = run(&[&["replay", &trace], &flags[..]].concat(), "");
        assert_eq!((ended.code, ended.stderr.lines().count()), (Some(2), 1), "{}", ended.stderr);
        assert!(ended.stderr.contains(flags[0]), "{}", ended.stderr);
    }
}

#[test]
fn a_page_shows_one_recording_and_is_written_or_not() {
    let scratch = Scratch::new();
    let (server, trace, _) = recorded(&scratch, &[]);
    server.terminate().good();
    let ended = run(&["replay", &trace, "--quiet", "--json", "--html", &scratch.name("missing/out.html")], "");
    failed(&ended, "report");
    let again = ["append", "notes", "--data", &scratch.name("twice"), "--record", &trace];
    run(&again, "one\n").good();
    let page = scratch.name("out.html");
    let ended = run(&["replay", &trace, "--html", &page], "");
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains("--run"), "{}", ended.stderr);
    run(&["replay", &trace, "--quiet", "--run", "2", "--html", &page], "").good();
    assert!(fs::read_to_string(&page).expect("the page is there").contains("recording 2 of"));
}
