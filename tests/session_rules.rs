//! Rules of a bare session that only odd orders of events put to the test.

use std::sync::Arc;
use std::time::Duration;

use antiphon::codes::Code;
use antiphon::heads::{Head, Heads};
use antiphon::log::Log;
use antiphon::op::{Body, Cursor, Op, OpId, Origin, ReplicaId, Timeline};
use antiphon::session::{Config, Event, Input, Live, Local, Opening, Output, Session, Transport};
use antiphon::timeline::Opens;
use antiphon::wire::*;
use antiphon::{Instant, Machine};
use bytes::Bytes;

const NOW: Instant = Instant::ZERO;

fn config(datagram: bool) -> Config {
    let transport = if datagram { Transport::Datagram { mtu: 1200 } } else { Transport::Reliable };
    Config { transport, ..Config::default() }
}

fn session(id: u8, config: Config) -> Session {
    let local = Local {
        replica: ReplicaId([id; 16]),
        timeline: Timeline::new(id.into()),
        previous: None,
        nonce: id.into(),
        token: None,
    };
    Session::new(NOW, config, local)
}

fn hello(id: u8, nonce: u64) -> Message {
    Message::Hello(Hello {
        version_min: 1,
        version_max: 1,
        replica: ReplicaId([id; 16]),
        timeline: Timeline::new(id.into()),
        previous: None,
        nonce,
        limits: Limits::default(),
        features: 0,
        token: None,
        extensions: Bytes::new(),
    })
}

fn drain(session: &mut Session) -> Vec<Output> {
    std::iter::from_fn(|| session.poll()).collect()
}

fn sent(outputs: &[Output]) -> Vec<Message> {
    outputs
        .iter()
        .filter_map(|output| match output {
            Output::Transmit(frame) => Message::decode(frame).ok(),
            _ => None,
        })
        .collect()
}

/// A live session whose peer is played by hand; on datagrams its frames are sealed with `tag`.
fn live(config: Config) -> (Session, Option<Tag>) {
    let datagram = config.transport != Transport::Reliable;
    let mut session = session(1, config);
    let mine = match &drain(&mut session)[0] {
        Output::Transmit(frame) => frame.clone(),
        _ => panic!(),
    };
    let mine = if datagram { mine.slice(..mine.len() - 4) } else { mine };
    let theirs = hello(2, 2).encode();
    let frame = if datagram { Tag::NONE.seal(&theirs) } else { theirs.clone() };
    session.handle(NOW, Input::Received(frame)).unwrap();
    session.handle(NOW, Input::Authenticated(Ok(()))).unwrap();
    let hash = |frame: &[u8]| xxhash_rust::xxh3::xxh3_64(frame);
    let welcome =
        Welcome { version: 1, hellos: hash(&mine).wrapping_add(hash(&theirs)), durability: Durability::Commit };
    let tag = datagram.then(|| Tag::new(2, 1));
    give(&mut session, tag, Message::Welcome(welcome));
    assert!(session.is_live());
    drain(&mut session);
    (session, tag)
}

fn give(session: &mut Session, tag: Option<Tag>, message: Message) {
    let frame = message.encode();
    session.handle(NOW, Input::Received(tag.map_or(frame.clone(), |tag| tag.seal(&frame)))).unwrap();
}

fn opens(id: u8) -> Arc<Opens> {
    Arc::new(Opens::first(Timeline::new(id.into())))
}

fn opening(log: &Log, cursor: Option<Cursor>, thorough: bool) -> Input {
    Input::Open(Box::new(Opening {
        number: 0,
        document: "doc".parse().unwrap(),
        access: Access::Write,
        grant: Access::Write,
        thorough,
        schema: None,
        history: log.history().clone(),
        horizon: log.horizon(),
        snapshot: log.snapshot(),
        tail: log.tail(),
        heads: log.heads().clone(),
        cursor,
    }))
}

fn their_open(tail: u64, digest: u64, thorough: bool, cursor: Option<Cursor>) -> Message {
    Message::Open(Open {
        number: 7,
        document: "doc".parse().unwrap(),
        access: Access::Write,
        thorough,
        schema: None,
        timelines: None,
        begins: 0,
        horizon: 0,
        tail,
        digest,
        cursor: cursor.map(Into::into),
        own: Head::NONE.into(),
        acks: 0,
    })
}

fn body(len: usize) -> Body {
    Body::Bytes(vec![5; len].into())
}

const OTHER: ReplicaId = ReplicaId([9; 16]);

/// A log of two ops, of which the peer of [`compared`] lacks the first and has the second.
fn half_known() -> Log {
    let mut log = Log::new(opens(1));
    log.append(ReplicaId([1; 16]), body(1));
    log.take(Op { id: OpId { author: OTHER, seq: 1 }, body: body(1) }, None);
    log
}

/// A live session that has compared a log with the heads of its peer, who has one op, and has not said where it starts.
fn compared(log: &Log) -> Session {
    let (mut session, _) = live(config(false));
    session.handle(NOW, opening(log, None, true)).unwrap();
    give(&mut session, None, their_open(1, 99, true, None));
    let heads: Heads = [(OTHER, Head::NONE.then(body(1).hash()))].into_iter().collect();
    let part = pack_heads(heads.iter(), 1000).0;
    give(&mut session, None, Message::Heads(HeadsPart { document: 7, offset: 0, last: true, heads: part }));
    session.handle(NOW, Input::Compared { number: 0, comparison: log.compare(&heads).unwrap() }).unwrap();
    session
}

#[test]
fn a_skip_goes_before_a_large_op_though_the_peers_start_is_unknown() {
    let (tx, rx) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut log = half_known();
        log.append(ReplicaId([1; 16]), body(100_000)); // the peer lacks it, in parts
        let mut session = compared(&log);
        // The host answers each Load with one entry, as it may.
        for _ in 0..10 {
            let outputs = drain(&mut session);
            let Some(from) = outputs.iter().find_map(|output| match output {
                Output::Load { from, .. } => Some(*from),
                _ => None,
            }) else {
                break;
            };
            let chunk = log.read(from, 0).unwrap();
            session.handle(NOW, Input::Loaded { number: 0, chunk }).unwrap();
        }
        tx.send(()).unwrap();
    });
    assert!(rx.recv_timeout(Duration::from_secs(5)).is_ok(), "handle() never returns");
}

#[test]
fn after_a_fork_no_op_of_its_author_goes_either_way() {
    let mut log = Log::new(opens(1));
    log.take(Op { id: OpId { author: OTHER, seq: 1 }, body: body(2) }, None);
    let mut session = compared(&log);
    assert!(sent(&drain(&mut session)).iter().any(|message| matches!(message, Message::Fork(_))));
    // The peer has not heard of it yet, and sends what follows its history, and an op of its own.
    give(&mut session, None, Message::Resume(Resume { document: 7, from: Some(1) }));
    for (author, base, from) in [(OTHER, 1, 1), (ReplicaId([2; 16]), 0, 2)] {
        let number = from as u32;
        give(&mut session, None, Message::Author(Announce { document: 7, number, author, base }));
        let content = Content::Live { author: number, seq: 1, body: body(1) };
        give(&mut session, None, Message::Changes(Changes { document: 7, absolute: false, from, content }));
    }
    let taken = drain(&mut session).into_iter().filter_map(|output| match output {
        Output::Take { to, ops, .. } => Some((to, ops.iter().map(|op| op.id.author).collect::<Vec<_>>())),
        _ => None,
    });
    assert_eq!(taken.collect::<Vec<_>>(), [(2, vec![]), (3, vec![ReplicaId([2; 16])])]);

    // Here too the author goes on, and so does this end.
    for (author, seq) in [(OTHER, 2), (ReplicaId([1; 16]), 1)] {
        let from = log.tail();
        log.take(Op { id: OpId { author, seq }, body: body(1) }, None);
        let ops = log.entries().rev().take(1).map(|entry| entry.op.clone()).collect::<Vec<_>>();
        let packed = changes::pack(0, 0, from, ops.iter(), |id| log.author(id), 1000, |_| from + 1).unwrap().0;
        let (tail, digest, live) = (log.tail(), log.heads().digest(), Some(Live::Packed([packed].into())));
        session.handle(NOW, Input::Advance { number: 0, tail, digest, held: 3, live }).unwrap();
    }
    let mut authors = Vec::new();
    loop {
        let outputs = drain(&mut session);
        authors.extend(sent(&outputs).into_iter().filter_map(|message| match message {
            Message::Author(author) => Some(author.author),
            _ => None,
        }));
        let load = outputs.iter().find_map(|output| match output {
            Output::Load { from, .. } => Some(*from),
            _ => None,
        });
        let Some(from) = load else { break };
        let chunk = log.read(from, 1000).unwrap();
        session.handle(NOW, Input::Loaded { number: 0, chunk }).unwrap();
    }
    assert_eq!(authors, [ReplicaId([1; 16])]);
}

#[test]
fn an_op_of_which_parts_went_is_ended_when_a_fork_shows() {
    let (mut session, _) = live(config(false));
    let mut log = Log::new(opens(1));
    log.take(Op { id: OpId { author: OTHER, seq: 1 }, body: body(600_000) }, None);
    session.handle(NOW, opening(&log, None, false)).unwrap();
    give(&mut session, None, their_open(0, 0, false, None));
    session.handle(NOW, Input::Loaded { number: 0, chunk: log.read(0, u64::MAX).unwrap() }).unwrap();
    drain(&mut session);
    let begun = session.frontiers(0).unwrap().sent;
    assert!(begun.position == 0 && begun.offset > 0, "the window has room for some parts only: {begun:?}");

    give(&mut session, None, Message::Fork(control::Fork { document: 7, authors: OTHER.0.to_vec().into() }));
    let ack = |number, received, held| {
        let (window, credit) = (Limits::default().window.into(), Limits::default().credit.into());
        Message::Ack(Ack { document: 0, number, received, held, window, credit, skip: None, level: None })
    };
    give(&mut session, None, ack(1, begun, 0));
    let changes = sent(&drain(&mut session)).into_iter().filter_map(|message| match message {
        Message::Changes(changes) => Some(changes),
        _ => None,
    });
    let content = Content::Bulk { span: 1, runs: Vec::new(), bodies: Vec::new() };
    assert_eq!(changes.collect::<Vec<_>>(), [Changes { document: 0, absolute: true, from: 0, content }]);
    assert_eq!(session.frontiers(0).unwrap().sent, Point::at(1));
    give(&mut session, None, ack(2, Point::at(1), 1));
    assert_eq!((session.ending(), session.under_way()), (None, (0, 0)));
}

#[test]
fn an_answer_about_one_peer_never_lets_another_in() {
    let mut session = session(1, config(true));
    session.handle(NOW, Input::Received(Tag::NONE.seal(&hello(2, 22).encode()))).unwrap();
    session.handle(NOW, Input::Received(Tag::NONE.seal(&hello(3, 33).encode()))).unwrap();
    let asked = drain(&mut session).into_iter().filter(|output| matches!(output, Output::Authenticate { .. })).count();
    assert_eq!(asked, 1, "who comes second is not heard before the host has answered about the first");
    session.handle(NOW, Input::Authenticated(Ok(()))).unwrap();
    let welcomed = drain(&mut session).iter().any(|output| match output {
        Output::Transmit(frame) => Tag::new(1, 33).unseal(frame).is_some_and(|frame| frame[0] == 2),
        _ => false,
    });
    assert!(!welcomed, "replica 3 was welcomed by the answer to replica 2's question");
}

#[test]
fn a_new_hello_before_live_begins_a_new_control_stream() {
    let mut session = session(1, config(true));
    let log = Log::new(opens(1));
    session.handle(NOW, opening(&log, None, false)).unwrap();
    session.handle(NOW, Input::Received(Tag::NONE.seal(&hello(2, 22).encode()))).unwrap();
    session.handle(NOW, Input::Authenticated(Ok(()))).unwrap();
    drain(&mut session);
    // Nothing but Hello came of that one; this is the real one.
    session.handle(NOW, Input::Received(Tag::NONE.seal(&hello(2, 23).encode()))).unwrap();
    session.handle(NOW, Input::Authenticated(Ok(()))).unwrap();
    let outputs = drain(&mut session);
    let numbers: Vec<_> = outputs
        .iter()
        .filter_map(|output| match output {
            Output::Transmit(frame) => match Message::decode(&Tag::new(1, 23).unseal(frame)?) {
                Ok(Message::Reliable(number, _)) => Some(number),
                _ => None,
            },
            _ => None,
        })
        .collect();
    assert_eq!(numbers.first(), Some(&0), "the new peer waits for control message 0: {numbers:?}");
}

#[test]
fn an_unknown_optional_message_inside_reliable_is_skipped() {
    let (mut session, tag) = live(config(true));
    let inner = Message::Unknown(0x7f, Bytes::from_static(b"future")).encode();
    give(&mut session, tag, Message::Reliable(0, inner));
    assert_eq!(session.ending(), None);
}

#[test]
fn a_skip_frees_what_waited_behind_it() {
    let (mut session, tag) = live(config(true));
    let log = Log::new(opens(1));
    session.handle(NOW, opening(&log, None, false)).unwrap();
    give(&mut session, tag, Message::Reliable(0, their_open(0, 0, false, None).encode()));
    let author = Announce { document: 7, number: 0, author: ReplicaId([2; 16]), base: 0 };
    give(&mut session, tag, Message::Reliable(1, Message::Author(author).encode()));
    let content = Content::Live { author: 0, seq: 1, body: body(1) };
    give(&mut session, tag, Message::Changes(Changes { document: 7, absolute: true, from: 2, content }));
    drain(&mut session);
    let skip = Some(Skip { document: 7, from: 0, to: 2 });
    let ack =
        Ack { document: 0, number: 1, received: Point::at(0), held: 0, window: 1000, credit: 1000, skip, level: None };
    give(&mut session, tag, Message::Ack(ack));
    let taken = drain(&mut session).iter().any(|output| matches!(output, Output::Take { .. }));
    assert!(taken, "the op right after the skip stays parked");
}

#[test]
fn nothing_follows_closed() {
    let mut config = config(true);
    config.limits.documents = 1;
    let (mut session, tag) = live(config);
    let open = |name: &str| {
        let Message::Open(open) = their_open(0, 0, false, None) else { panic!() };
        Message::Open(Open { document: name.parse().unwrap(), ..open }).encode()
    };
    give(&mut session, tag, Message::Reliable(1, open("a")));
    give(&mut session, tag, Message::Reliable(2, open("b")));
    drain(&mut session);
    give(&mut session, tag, Message::Reliable(0, Message::Ping(Ping { token: 0, blocked: false }).encode()));
    let outputs = drain(&mut session);
    let closed = outputs.iter().position(|output| matches!(output, Output::Event(Event::Closed(_)))).unwrap();
    assert_eq!(&outputs[closed + 1..], &[]);
}

/// The peer lacks everything; the host is asked for the first entries.
fn asked_for_entries(ops: u64) -> (Session, Log) {
    let (mut session, _) = live(config(false));
    let mut log = Log::new(opens(1));
    (0..ops).for_each(|_| {
        log.append(ReplicaId([1; 16]), body(10));
    });
    session.handle(NOW, opening(&log, None, false)).unwrap();
    give(&mut session, None, their_open(0, 0, false, None));
    (session, log)
}

#[test]
fn a_rewind_into_an_op_that_is_not_in_parts_is_refused() {
    let (mut session, _) = live(config(false));
    let mut log = Log::new(opens(1));
    session.handle(NOW, opening(&log, None, false)).unwrap();
    give(&mut session, None, their_open(0, 0, false, None));
    give(&mut session, None, Message::Author(Announce { document: 7, number: 0, author: ReplicaId([2; 16]), base: 0 }));
    let content = Content::Live { author: 0, seq: 1, body: body(10) };
    give(&mut session, None, Message::Changes(Changes { document: 7, absolute: true, from: 0, content }));
    let (peer, op) = (ReplicaId([2; 16]), Op { id: OpId { author: ReplicaId([2; 16]), seq: 1 }, body: body(10) });
    log.take(op, Some(Origin::of(peer, Timeline::new(2))));
    let digest = log.heads().digest();
    session.handle(NOW, Input::Advance { number: 0, tail: 1, digest, held: 1, live: None }).unwrap();
    let mut asked = 0;
    for round in 1..=2u64 {
        for _ in 0..50 {
            let outputs = drain(&mut session);
            if !outputs.iter().any(|output| matches!(output, Output::Load { .. })) {
                break;
            }
            asked += round / 2;
            session.handle(NOW, Input::Loaded { number: 0, chunk: log.read(0, 1000).unwrap() }).unwrap();
        }
        session.handle(Instant::from_millis(30), Input::Timer).unwrap(); // the skip is told
        let (received, from) = (Point::at(0), Point { position: 0, offset: 5 });
        give(&mut session, None, Message::Rewind(Rewind { document: 0, number: round, received, from, to: None }));
    }
    assert!(asked < 10, "{asked} loads of the same entry, and no end");
}

#[test]
fn rewinds_draw_at_most_a_window_a_round_trip() {
    let (mut session, mut log) = asked_for_entries(60);
    let chunk = log.read(0, u64::MAX).unwrap();
    session.handle(NOW, Input::Loaded { number: 0, chunk }).unwrap();
    drain(&mut session);
    let mut sent = 0;
    for number in 1..=1000u64 {
        let (from, to) = (Point::at(0), Some(Point::at(60)));
        give(&mut session, None, Message::Rewind(Rewind { document: 0, number, received: Point::at(0), from, to }));
        let outputs = drain(&mut session);
        if outputs.iter().any(|output| matches!(output, Output::Load { .. })) {
            let chunk = log.read(0, u64::MAX).unwrap();
            session.handle(NOW, Input::Loaded { number: 0, chunk }).unwrap();
        }
        let frames = outputs.into_iter().chain(drain(&mut session));
        sent += frames
            .map(|output| match output {
                Output::Transmit(frame) => frame.len(),
                _ => 0,
            })
            .sum::<usize>();
    }
    assert!(
        sent <= Limits::default().window as usize + 2 * 1200,
        "1000 Rewinds at one moment, of 12 bytes each, are answered by {sent} bytes"
    );
}

#[test]
fn what_is_sent_again_is_loaded_within_bounds() {
    let (mut session, mut log) = asked_for_entries(60);
    for _ in 0..100 {
        let from = drain(&mut session).iter().find_map(|output| match output {
            Output::Load { from, .. } => Some(*from),
            _ => None,
        });
        let Some(from) = from else { break };
        session.handle(NOW, Input::Loaded { number: 0, chunk: log.read(from, 100).unwrap() }).unwrap();
    }
    let (from, to) = (Point::at(0), Some(Point::at(60)));
    give(&mut session, None, Message::Rewind(Rewind { document: 0, number: 1, received: Point::at(0), from, to }));
    for output in drain(&mut session) {
        if let Output::Load { max_cost, .. } = output {
            assert_ne!(max_cost, u64::MAX);
        }
    }
}

#[test]
fn an_empty_peer_is_not_sent_ops_from_above_a_horizon() {
    let (mut session, _) = live(config(false));
    let source = {
        let mut log = Log::new(opens(1));
        (0..4).for_each(|_| {
            log.append(ReplicaId([1; 16]), body(1));
        });
        log
    };
    let history = source.history().clone();
    let log = Log::load(history, source.heads().clone(), (2, None), 4);
    session.handle(NOW, opening(&log, None, false)).unwrap();
    give(&mut session, None, their_open(0, 0, false, None));
    let outputs = drain(&mut session);
    assert!(!outputs.iter().any(|output| matches!(output, Output::Load { .. })), "a gap is sent: {outputs:?}");
}

#[test]
fn a_skip_that_waits_for_the_peers_start_is_told_then() {
    let mut log = half_known();
    let mut session = compared(&log);
    let mut outputs = drain(&mut session);
    for position in 0..2 {
        assert!(
            outputs.iter().any(|output| matches!(output, Output::Load { from, .. } if *from == position)),
            "{outputs:?}"
        );
        session.handle(NOW, Input::Loaded { number: 0, chunk: log.read(position, 0).unwrap() }).unwrap();
        outputs = drain(&mut session);
    }
    // The delay of acknowledgements goes by, and only then does the peer say where it starts.
    session.handle(Instant::from_millis(30), Input::Timer).unwrap();
    drain(&mut session);
    give(&mut session, None, Message::Resume(Resume { document: 7, from: Some(1) }));
    session.handle(Instant::from_millis(100), Input::Timer).unwrap();
    session.handle(Instant::from_millis(200), Input::Timer).unwrap();
    let told =
        sent(&drain(&mut session)).iter().any(|message| matches!(message, Message::Ack(ack) if ack.skip.is_some()));
    assert!(told, "the peer never learns that position 1 holds nothing for it");
}

#[test]
fn a_tail_that_no_log_has_is_refused() {
    let (mut session, _) = live(config(false));
    session.handle(NOW, opening(&Log::new(opens(1)), None, false)).unwrap();
    give(&mut session, None, their_open(u64::MAX, 0, false, None));
    assert_ne!(session.held(0).map(|held| held.position), Some(u64::MAX));
}

#[test]
fn a_late_denial_is_no_misuse() {
    let (mut session, _) = live(config(false));
    give(&mut session, None, their_open(0, 0, false, None));
    drain(&mut session); // PeerOpened: the host thinks
    give(
        &mut session,
        None,
        Message::Close(End { document: "doc".parse().unwrap(), code: Code::DONE, reason: String::new() }),
    );
    let told = drain(&mut session).iter().any(|output| matches!(output, Output::Event(_)));
    let deny = Input::Deny { document: "doc".parse().unwrap(), code: Code::FORBIDDEN, reason: String::new() };
    assert!(told || session.handle(NOW, deny).is_ok(), "nobody told the host that the question is void");
}
