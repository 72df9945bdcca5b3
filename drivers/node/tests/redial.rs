//! A link is connected again and again: not too soon, not too late, and not where it makes no sense.

mod common;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use antiphon::codes::Code;
use antiphon::replica::{self, Admission, Options};
use antiphon_memory::MemoryStorage;
use antiphon_node::{
    Config, ConnectError, Connector, Error, Link, LinkEnd, LinkOptions, LinkState, Node, RedialPolicy,
};
use common::*;

/// Fails as it is told, and then connects; notes when it was asked.
struct Flaky {
    asked: Arc<Mutex<Vec<Instant>>>,
    failures: Vec<ConnectError>,
    to: To,
}

impl Connector for Flaky {
    type Transport = (Out, In);

    async fn connect(&mut self, frame_max: u32) -> Result<(Out, In), ConnectError> {
        self.asked.lock().expect("nobody panicked").push(Instant::now());
        match self.failures.pop() {
            Some(failure) => Err(failure),
            None => self.to.connect(frame_max).await,
        }
    }
}

/// A link that fails so, and when it was tried.
fn flaky(here: &Node, there: &Node, failures: Vec<ConnectError>, policy: RedialPolicy) -> (Link, Vec<Duration>) {
    let asked = Arc::default();
    let connector = Flaky { asked: Arc::clone(&asked), failures, to: To(there.clone()) };
    let link = here.connect(connector, LinkOptions::default(), policy).expect("the node runs");
    wait(link.live()).expect("at last it connects");
    let asked = asked.lock().expect("nobody panicked");
    (link, asked.windows(2).map(|pair| pair[1] - pair[0]).collect())
}

#[test]
fn waits_grow_up_to_the_cap() {
    let (here, there) = (memory(), memory());
    let policy =
        RedialPolicy { base: Duration::from_millis(20), cap: Duration::from_millis(80), ..RedialPolicy::default() };
    let (_, waits) = flaky(&here.node, &there.node, vec![ConnectError::later("not yet"); 5], policy);
    assert_eq!(waits.len(), 5);
    // Half of what is doubled each time is waited at least; that it is not far more is a matter of the machine.
    for (wait, least) in waits.into_iter().zip([10, 20, 40, 40, 40]) {
        assert!(wait >= Duration::from_millis(least), "{wait:?} is less than {least} ms");
        assert!(wait < Duration::from_secs(10), "{wait:?} is far beyond the cap");
    }
    stop([here, there]);
}

#[test]
fn a_peer_that_says_when_to_come_back_is_obeyed() {
    let (here, there) = (memory(), memory());
    let hint = Duration::from_millis(300);
    let (link, waits) = flaky(&here.node, &there.node, vec![ConnectError::later("busy").after(hint)], eager());
    assert!(waits[0] >= hint, "{waits:?}");

    let LinkState::Live { link: session, .. } = link.state() else { panic!("it is live") };
    let began = Instant::now();
    let mut state = link.state();
    here.node.disconnect(session, Code::OVERLOADED, "come back", Some(hint)).expect("the node runs");
    while !matches!(state, LinkState::Live { link, .. } if link != session) {
        state = link.state();
        std::thread::yield_now();
    }
    assert!(began.elapsed() >= hint);
    stop([here, there]);
}

/// The failures that count after a session that was live and ended.
fn failures_after_a_session(healthy_after: Duration) -> u32 {
    let (here, there) = (memory(), memory());
    let policy = RedialPolicy { base: Duration::from_millis(1), cap: PATIENCE, healthy_after };
    let (link, _) = flaky(&here.node, &there.node, vec![ConnectError::later("not yet"); 4], policy);
    let LinkState::Live { link: session, .. } = link.state() else { panic!("it is live") };
    let hint = Some(PATIENCE); // so that it stays as it is
    here.node.disconnect(session, Code::OVERLOADED, "come back", hint).expect("the node runs");
    let failures = loop {
        if let LinkState::Connecting { failures, reason } = link.state() {
            assert!(reason.expect("it failed").contains("come back"));
            break failures;
        }
        std::thread::yield_now();
    };
    stop([here, there]);
    failures
}

#[test]
fn a_healthy_session_forgets_the_failures_before_it() {
    assert_eq!(failures_after_a_session(Duration::ZERO), 1);
    assert_eq!(failures_after_a_session(PATIENCE), 5);
}

#[test]
fn it_is_over_where_trying_again_makes_no_sense() {
    let closed = replica::Config { peers: Admission::Closed, ..replica::Config::default() };
    let closed = Running::start(MemoryStorage::new(), Config { replica: closed, ..Config::default() });
    let here = memory();
    let document = open(&here.node);
    let link = connect(&here.node, &closed.node);
    let end = wait(link.ended());
    assert!(matches!(&end, LinkEnd::Session(ending) if ending.code == Code::UNAUTHENTICATED), "{end}");
    assert_eq!(link.state(), LinkState::Ended(end.clone()));
    assert_eq!(wait(link.in_step(&document)).err(), Some(Error::Link(end)));

    let asked = Arc::default();
    let never = ConnectError::never("the address is wrong: correct it");
    let connector = Flaky { asked: Arc::clone(&asked), failures: vec![never.clone()], to: To(closed.node.clone()) };
    let link = here.node.connect(connector, LinkOptions::default(), eager()).expect("the node runs");
    assert_eq!(wait(link.live()), Err(Error::Link(LinkEnd::Connect(never))));
    assert_eq!(asked.lock().expect("nobody panicked").len(), 1);
    stop([here, closed]);
}

#[test]
fn a_link_that_the_app_disconnects_stays_so() {
    let (here, there) = (memory(), memory());
    let mut events = there.node.subscribe();
    let link = connect(&here.node, &there.node);
    wait(link.live()).expect("it connects");
    link.disconnect();
    assert_eq!(wait(link.ended()), LinkEnd::Disconnected);
    let ended =
        |notice| matches!(notice, antiphon_node::Notice::Event(replica::Event::Disconnected { ending: Some(_), .. }));
    while !ended(wait(events.next()).expect("the node runs")) {}
    // Also while it waits to be connected.
    let closed = |link: &Link| matches!(link.state(), LinkState::Connecting { failures: 1.., .. });
    let waiting = RedialPolicy { base: PATIENCE * 2, cap: PATIENCE * 2, ..RedialPolicy::default() };
    let failures = vec![ConnectError::later("not yet")];
    let connector = Flaky { asked: Arc::default(), failures, to: To(there.node.clone()) };
    let link = here.node.connect(connector, LinkOptions::default(), waiting).expect("the node runs");
    while !closed(&link) {
        std::thread::yield_now();
    }
    link.disconnect();
    assert_eq!(wait(link.ended()), LinkEnd::Disconnected);
    stop([here, there]);
}

#[test]
fn what_is_refused_on_a_link_is_told_to_who_waits_for_it() {
    let ask = replica::Config { documents: Admission::Ask, peers: Admission::Ask, ..replica::Config::default() };
    let host = Running::start(MemoryStorage::new(), Config { replica: ask, ..Config::default() });
    let here = memory();
    let (document, secret) = (open(&here.node), "secret".parse().expect("a good name"));
    here.node.open_document(&secret, Options::default()).expect("the node runs");
    let options = LinkOptions { token: Some("let me in".into()), ..LinkOptions::default() };
    let link = here.node.connect(To(host.node.clone()), options, eager()).expect("the node runs");
    let answering = std::thread::spawn({
        let node = host.node.clone();
        move || {
            while let Some((ticket, question)) = wait(node.next_question()) {
                let answer = match question {
                    replica::Question::Peer { token, .. } if token.as_deref() == Some(b"let me in") => {
                        Ok(Default::default())
                    }
                    replica::Question::Peer { .. } => Err((Code::UNAUTHENTICATED, String::from("who are you?"))),
                    replica::Question::Document { document, .. } if document.name() == "secret" => {
                        Err((Code::FORBIDDEN, String::from("it is secret")))
                    }
                    replica::Question::Document { access, .. } => Ok(access),
                };
                if node.answer(ticket, answer).is_err() {
                    return;
                }
            }
        }
    });
    append(&here.node, "public");
    wait(link.acknowledged(&document)).expect("this one is granted");
    let refused = wait(link.acknowledged(&secret)).expect_err("this one is not");
    assert!(matches!(&refused, Error::Closed { code: Code::FORBIDDEN, .. }), "{refused}");
    assert!(refused.to_string().contains("it is secret"));
    stop([here, host]);
    answering.join().expect("no panic");
}
