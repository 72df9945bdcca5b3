//! From the first frame to live: who may come in, what ends a session before that, and what old frames can't do.

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use antiphon::codes::Code;
use antiphon::op::{ReplicaId, Timeline};
use antiphon::replica::{self, Admission, LinkId, Options, Question, Ticket};
use antiphon::rng::Rng;
use antiphon::session::{BYTES_BEFORE_WELCOME, By, Config, Event, Input, Local, Misuse, Output, Transport};
use antiphon::storage::{Continuity, Storage};
use antiphon::wire::{Access, Message, Tag};
use antiphon::{Instant, Machine, Replica, Session};
use antiphon_memory::{Disk, MemoryStorage, Pair};
use antiphon_sim::World;
use antiphon_sim::world::Medium;
use bytes::Bytes;
use common::*;

const NOW: Instant = Instant::from_millis(1);
const HELLO: u8 = 0x01;
const WELCOME: u8 = 0x02;
const DATAGRAM: Transport = Transport::Datagram { mtu: 1200 };
const TRANSPORTS: [Transport; 2] = [Transport::Reliable, DATAGRAM];

fn id(side: usize) -> ReplicaId {
    ReplicaId([side as u8 + 1; 16])
}

fn timeline(side: usize) -> Timeline {
    Timeline::new(side as u64 + 10)
}

fn local(side: usize, nonce: u64) -> Local {
    Local { replica: id(side), timeline: timeline(side), previous: None, nonce, token: None }
}

fn session_of(local: Local, transport: Transport) -> Session {
    Session::new(NOW, Config { transport, ..Config::default() }, local)
}

fn session(side: usize, transport: Transport) -> Session {
    session_of(local(side, side as u64 + 20), transport)
}

fn pair(transport: Transport) -> Pair<Session> {
    Pair::new([0, 1].map(|side| session(side, transport)))
}

fn hosts() -> [Host; 2] {
    [0, 1].map(|side| Host::new(id(side), timeline(side), 3))
}

/// What a session has to say: frames, and everything else.
fn drain(session: &mut Session) -> (Vec<Bytes>, Vec<Output>) {
    let (mut frames, mut others) = (Vec::new(), Vec::new());
    while let Some(output) = session.poll() {
        match output {
            Output::Transmit(frame) => frames.push(frame),
            other => others.push(other),
        }
    }
    (frames, others)
}

fn feed(session: &mut Session, frames: impl IntoIterator<Item = Bytes>) -> Result<(), Misuse> {
    frames.into_iter().try_for_each(|frame| session.handle(NOW, Input::Received(frame)))
}

/// Lets the hosts answer, and delivers nothing.
fn answer(pair: &mut Pair<Session>, hosts: &mut [Host; 2], now: Instant) {
    for (side, host) in hosts.iter_mut().enumerate() {
        while let Some(output) = pair.poll(side) {
            host.answer(output).into_iter().for_each(|input| pair.handle(now, side, input).unwrap());
        }
    }
}

fn ending(session: &Session) -> Option<(Code, By)> {
    session.ending().map(|ending| (ending.code, ending.by))
}

/// The messages in frames of a transport, Reliable ones unwrapped.
fn messages(frames: &[Bytes], transport: Transport) -> Vec<Message> {
    let trailer = if transport == Transport::Reliable { 0 } else { antiphon::wire::TRAILER_BYTES };
    let decode = |frame: &Bytes| match Message::decode(&frame.slice(..frame.len() - trailer)).expect("it is ours") {
        Message::Reliable(_, inner) => Message::decode(&inner).expect("it is ours"),
        message => message,
    };
    frames.iter().map(decode).collect()
}

fn names(frames: &[Bytes], transport: Transport) -> Vec<&'static str> {
    messages(frames, transport).iter().map(Message::name).collect()
}

// -------------------------------------------------------------------------------------------- versions

/// The Hello in a frame, with other versions.
fn with_versions(frame: &Bytes, transport: Transport, min: u16, max: u16) -> Bytes {
    let Some(Message::Hello(mut hello)) = messages(std::slice::from_ref(frame), transport).pop() else {
        panic!("sessions begin with Hello");
    };
    (hello.version_min, hello.version_max) = (min, max);
    let inner = Message::Hello(hello).encode();
    if transport == Transport::Reliable { inner } else { Tag::NONE.seal(&inner) }
}

#[test]
fn versions_that_do_not_meet_end_both_sessions() {
    for transport in TRANSPORTS {
        for (min, max) in [(0, 0), (2, 9), (u16::MAX, u16::MAX)] {
            let (mut pair, mut hosts) = (pair(transport), hosts());
            let hello = with_versions(&pair.frames_to(0)[0], transport, min, max);
            pair.frames_to(0)[0] = hello;
            run_pair(&mut pair, &mut hosts, NOW, NOW);
            assert_eq!(hosts[0].ending(), Some((Code::VERSION_MISMATCH, By::Us)));
            assert_eq!(hosts[1].ending(), Some((Code::VERSION_MISMATCH, By::Peer)), "the other end is told why");
            assert_eq!(pair.deadline(), None, "nothing is left to wait for");
        }
    }
}

#[test]
fn the_highest_version_in_common_is_spoken() {
    let mut one = session(0, Transport::Reliable);
    let (hello, _) = drain(&mut session(1, Transport::Reliable));
    feed(&mut one, [with_versions(&hello[0], Transport::Reliable, 0, 9)]).unwrap();
    one.handle(NOW, Input::Authenticated(Ok(()))).unwrap();
    let (frames, _) = drain(&mut one);
    let said = messages(&frames, Transport::Reliable);
    assert!(matches!(said[..], [Message::Hello(_), Message::Welcome(welcome)] if welcome.version == 1), "{said:?}");
}

// -------------------------------------------------------------------------------------------- one replica id twice

#[test]
fn two_ends_with_one_replica_id_do_not_talk() {
    for transport in TRANSPORTS {
        let same = |side: usize| session_of(local(0, side as u64 + 20), transport);
        let (mut pair, mut hosts) = (Pair::new([same(0), same(1)]), hosts());
        run_pair(&mut pair, &mut hosts, NOW, NOW);
        for host in &hosts {
            assert_eq!(host.ending(), Some((Code::SAME_REPLICA, By::Us)));
        }
    }
}

#[test]
fn a_replica_that_meets_its_copy_renews_and_both_get_in_step() {
    for medium in [Medium::reliable(5 * MILLISECOND), Medium::datagram(FAULTLESS)] {
        let mut world = World::new(7);
        let one = world.add(replica::Config::default());
        world.open(one, &doc(), Options::default());
        world.append(one, &doc(), "before the copy");
        world.stop(one);
        let copy = world.disk(one).backup();
        world.start(one, Continuity::Proven);
        let other = world.add_on(copy, replica::Config::default(), Continuity::Proven);
        world.open(other, &doc(), Options::default());
        let id = world.id(one);
        assert_eq!(world.id(other), id, "nothing told it that it is a copy");

        world.join(one, other, medium);
        world.run_for(5 * SECOND);
        assert!([one, other].iter().all(|node| world.id(*node) != id), "neither can know that it is not the copy");
        assert_ne!(world.id(one), world.id(other));
        world.append(one, &doc(), "after, by one");
        world.append(other, &doc(), "after, by the other");
        converge(&mut world, &[one, other], &doc(), SECOND);
        assert_eq!(set_on(world.disk(one), &doc()).len(), 3);
    }
}

// -------------------------------------------------------------------------------------------- silence

#[test]
fn a_peer_that_says_nothing_is_given_up() {
    for transport in TRANSPORTS {
        let mut one = session(0, transport);
        let mut hellos = 0;
        let mut last = NOW;
        while let Some(due) = one.deadline().filter(|due| due.since(NOW) < 60 * SECOND) {
            last = due;
            one.handle(due, Input::Timer).unwrap();
            let (frames, _) = drain(&mut one);
            hellos += names(&frames, transport).iter().filter(|name| **name == "Hello").count();
        }
        assert_eq!(ending(&one), Some((Code::HANDSHAKE_TIMEOUT, By::Us)));
        assert_eq!(last.since(NOW), Config::default().handshake_max);
        match transport {
            Transport::Reliable => assert_eq!(hellos, 1, "what arrives anyway is said once"),
            Transport::Datagram { .. } => assert!((4..=10).contains(&hellos), "{hellos} in 10 s, ever more slowly"),
        }
    }
}

#[test]
fn a_host_that_does_not_answer_is_given_up() {
    let mut one = session(0, Transport::Reliable);
    let (hello, _) = drain(&mut session(1, Transport::Reliable));
    feed(&mut one, hello).unwrap();
    one.handle(NOW + Config::default().handshake_max, Input::Timer).unwrap();
    assert_eq!(ending(&one), Some((Code::HANDSHAKE_TIMEOUT, By::Us)));
    assert_eq!(one.handle(NOW, Input::Authenticated(Ok(()))), Ok(()), "an answer that comes too late is ignored");
}

#[test]
fn a_peer_that_falls_silent_is_asked_and_then_given_up() {
    for transport in TRANSPORTS {
        let (mut pair, mut hosts) = (pair(transport), hosts());
        run_pair(&mut pair, &mut hosts, NOW, NOW);
        let heard = NOW;
        let mut said = Vec::new();
        while let Some(due) = pair.end(0).deadline().filter(|due| due.since(NOW) < 60 * SECOND) {
            pair.handle(due, 0, Input::Timer).unwrap();
            let frames: Vec<_> = pair.frames_to(1).drain(..).collect(); // lost
            said.extend(names(&frames, transport).into_iter().map(|name| (due.since(heard).as_secs(), name)));
        }
        assert_eq!(said, [(10, "Ping"), (20, "Ping"), (25, "Goodbye")]);
        assert_eq!(ending(pair.end(0)), Some((Code::SILENT, By::Us)));
    }
}

#[test]
fn a_pair_with_nothing_to_say_stays_alive() {
    for transport in TRANSPORTS {
        let (mut pair, mut hosts) = (pair(transport), hosts());
        let hours = Duration::from_secs(3 * 3600);
        run_pair(&mut pair, &mut hosts, NOW, NOW + hours);
        for side in 0..2 {
            assert!(pair.end(side).is_live());
            let frames = pair.end(side).stats().frames_sent;
            assert!(frames <= 2 + 2 * hours.as_secs() / 10, "{frames} frames: a Ping or a Pong each ten seconds");
        }
    }
}

#[test]
fn a_cut_that_nobody_notices_is_found_and_mended() {
    for medium in [Medium::reliable(5 * MILLISECOND), Medium::datagram(FAULTLESS)] {
        let (mut world, nodes) = world(1, 2);
        let path = world.join(nodes[0], nodes[1], medium);
        world.run_for(SECOND);
        world.cut(path, false);
        world.append(nodes[0], &doc(), "into the void");
        world.run_for(30 * SECOND);
        for node in &nodes {
            assert_eq!(count(&world, *node, |event| matches!(event, replica::Event::Disconnected { .. })), 1);
        }
        let silent = |event: &replica::Event| match event {
            replica::Event::Disconnected { ending: Some(ending), .. } => ending.code == Code::SILENT,
            _ => false,
        };
        assert!(nodes.iter().any(|node| count(&world, *node, silent) == 1), "the first to notice ends the path");
        world.mend(path);
        converge(&mut world, &nodes, &doc(), 10 * SECOND);
    }
}

// -------------------------------------------------------------------------------------------- what is no Hello

#[test]
fn garbage_before_hello_ends_a_reliable_session() {
    let ping = Message::Ping(antiphon::wire::Ping { token: 1, blocked: false }).encode();
    let first = [
        (Bytes::from_static(b""), Code::MALFORMED),
        // Later on, its first byte would make it an optional message of some other version.
        (Bytes::from_static(b"GET / HTTP/1.1\r\n\r\n"), Code::UNEXPECTED),
        (Bytes::from_static(&[0xff; 40]), Code::MALFORMED),
        (Bytes::from_static(&[0x01, 0x01]), Code::MALFORMED),
        (ping, Code::UNEXPECTED),
    ];
    for (frame, code) in first {
        let mut one = session(0, Transport::Reliable);
        feed(&mut one, [frame.clone()]).unwrap();
        assert_eq!(ending(&one), Some((code, By::Us)), "{frame:?}");
        let (frames, _) = drain(&mut one);
        assert_eq!(names(&frames, Transport::Reliable), ["Hello", "Refuse"]);
    }
}

#[test]
fn garbage_on_datagrams_is_dropped() {
    let mut pair = pair(DATAGRAM);
    let mut hosts = hosts();
    let mut dice = Rng::new(5);
    let mut noise = |len: u64| (0..len).map(|_| dice.next_u64() as u8).collect::<Bytes>();
    let mut dropped = 0;
    for round in 0..20 {
        // Before, between and after the frames of the handshake.
        for len in [0, 1, 4, 5, 30, 576] {
            let garbage = noise(len);
            pair.frames_to(0).push_front(garbage);
            dropped += 1;
        }
        if round >= 2 {
            run_pair(&mut pair, &mut hosts, NOW, NOW);
        }
    }
    assert!((0..2).all(|side| pair.end(side).is_live()));
    assert_eq!(pair.end(0).stats().frames_dropped, dropped);
}

#[test]
fn too_much_before_welcome_ends_the_session() {
    for transport in TRANSPORTS {
        let mut one = session(0, transport);
        let (hello, _) = drain(&mut session(1, transport));
        feed(&mut one, hello.clone()).unwrap();
        let before = hello[0].len() as u64;
        // The host has not answered. An optional message is read over, and yet it counts.
        let tag = Tag::new(21, 20);
        let inner = Message::Unknown(0x41, Bytes::from(vec![7; 1000])).encode();
        let frame = if transport == Transport::Reliable { inner } else { tag.seal(&inner) };
        let allowed = (BYTES_BEFORE_WELCOME - before) / frame.len() as u64;
        for _ in 0..allowed {
            feed(&mut one, [frame.clone()]).unwrap();
            assert_eq!(ending(&one), None);
        }
        feed(&mut one, [frame]).unwrap();
        assert_eq!(ending(&one), Some((Code::OVERRUN, By::Us)));
    }
}

#[test]
fn many_documents_and_a_slow_host_do_not_overrun_the_peer() {
    for transport in TRANSPORTS {
        const DOCUMENTS: u32 = 1000;
        let (mut pair, mut hosts) = (pair(transport), hosts());
        let mut asked = false;
        let mut now = NOW;
        // One host opens a thousand documents at once; the other takes five seconds to let it in.
        for number in 0..DOCUMENTS {
            pair.handle(now, 0, hosts[0].opening_of(document(&format!("doc-{number}")), number)).unwrap();
        }
        let mut told = 0;
        while now < NOW + 8 * SECOND {
            pair.settle(now, |side, output| match output {
                Output::Authenticate { .. } if side == 1 => {
                    asked = true;
                    Vec::new()
                }
                Output::Event(Event::PeerOpened { .. }) => {
                    told += 1;
                    Vec::new()
                }
                output => hosts[side].answer(output),
            })
            .unwrap();
            now = now + 50 * MILLISECOND;
            if now >= NOW + 5 * SECOND && std::mem::take(&mut asked) {
                pair.handle(now, 1, Input::Authenticated(Ok(()))).unwrap();
            }
            (0..2).for_each(|side| pair.handle(now, side, Input::Timer).unwrap());
        }
        assert_eq!((ending(pair.end(0)), ending(pair.end(1))), (None, None));
        assert_eq!(told, DOCUMENTS, "each is opened at the end");
    }
}

// -------------------------------------------------------------------------------------------- earlier sessions

/// The frames that end 1 sent to end 0 in a session with an exchange of ops, its nonces being 21 and 20.
fn earlier_session() -> Vec<Bytes> {
    let (mut pair, mut hosts) = (pair(DATAGRAM), hosts());
    let mut frames = Vec::new();
    let opening = hosts[0].opening();
    pair.handle(NOW, 0, opening).unwrap();
    let mut now = NOW;
    loop {
        frames.extend(pair.frames_to(0).iter().cloned());
        answer(&mut pair, &mut hosts, now);
        if pair.step(now).unwrap().is_none() {
            let Some(due) = pair.deadline().filter(|due| *due < NOW + SECOND) else { break };
            now = now.max(due);
            (0..2).for_each(|side| pair.handle(now, side, Input::Timer).unwrap());
        }
    }
    assert!(hosts.iter().all(Host::is_in_step));
    frames.dedup();
    frames
}

/// A later session of the same two, with other nonces.
fn pair_anew() -> Pair<Session> {
    Pair::new([0, 1].map(|side| session_of(local(side, side as u64 + 50), DATAGRAM)))
}

#[test]
fn frames_of_an_earlier_session_do_nothing() {
    let old = earlier_session();
    let (hellos, others): (Vec<_>, Vec<_>) = old.into_iter().partition(|frame| frame[0] == HELLO);
    assert!(!hellos.is_empty() && others.len() > 8, "a session's worth of frames");

    // Before anything, between the frames of the new handshake, and in the new live session.
    for stage in 0..3 {
        let mut pair = pair_anew();
        let mut hosts = hosts();
        if stage == 1 {
            pair.step(NOW).unwrap();
            pair.step(NOW).unwrap();
        } else if stage == 2 {
            run_pair(&mut pair, &mut hosts, NOW, NOW);
            assert!(pair.end(0).is_live());
        }
        let before = pair.end(0).stats().frames_dropped;
        for frame in &others {
            pair.handle(NOW, 0, Input::Received(frame.clone())).unwrap();
        }
        assert_eq!(pair.end(0).stats().frames_dropped - before, others.len() as u64, "each of them is dropped");
        let opening = hosts[0].opening();
        pair.handle(NOW, 0, opening).unwrap();
        run_pair(&mut pair, &mut hosts, NOW, NOW + SECOND);
        assert!(hosts.iter().all(Host::is_in_step), "stage {stage}");
        assert_eq!((hosts[0].log.tail(), hosts[1].log.tail()), (6, 6));
    }
}

#[test]
fn the_hello_of_an_earlier_session_is_only_a_candidate() {
    let old = earlier_session();
    let (mut pair, mut hosts) = (pair_anew(), hosts());
    run_pair(&mut pair, &mut hosts, NOW, NOW);
    // Everything of the old one arrives again, Hello first; its other frames have the old nonces of both.
    for frame in old {
        pair.handle(NOW, 0, Input::Received(frame)).unwrap();
    }
    run_pair(&mut pair, &mut hosts, NOW, NOW);
    let opening = hosts[0].opening();
    pair.handle(NOW, 0, opening).unwrap();
    run_pair(&mut pair, &mut hosts, NOW, NOW + 60 * SECOND);
    assert!((0..2).all(|side| pair.end(side).is_live()));
    assert!(hosts.iter().all(Host::is_in_step));
}

#[test]
fn a_peer_that_starts_anew_on_the_same_path_ends_the_old_session() {
    let (mut pair, mut hosts) = (pair(DATAGRAM), hosts());
    run_pair(&mut pair, &mut hosts, NOW, NOW);
    // The peer's process is gone and another one is in its place, with another nonce.
    let mut anew = session_of(local(1, 77), DATAGRAM);
    let (hello, _) = drain(&mut anew);
    pair.handle(NOW, 0, Input::Received(hello[0].clone())).unwrap();
    assert!(pair.end(0).is_live(), "that Hello may be an old one's");
    let answer: Vec<_> = pair.frames_to(1).drain(..).collect();
    assert_eq!(names(&answer, DATAGRAM), ["Hello"], "it is told who is here");

    feed(&mut anew, answer).unwrap();
    anew.handle(NOW, Input::Authenticated(Ok(()))).unwrap();
    let (proof, _) = drain(&mut anew);
    assert_eq!(names(&proof, DATAGRAM), ["Welcome"]);
    pair.handle(NOW, 0, Input::Received(proof[0].clone())).unwrap();
    assert_eq!(ending(pair.end(0)), Some((Code::RESTARTED, By::Peer)), "only the new peer can know both nonces");
}

#[test]
fn an_old_hello_that_comes_first_gives_way_to_the_real_one() {
    let old = earlier_session();
    let hello = old.iter().find(|frame| frame[0] == HELLO).expect("sessions begin with Hello");
    let mut pair = pair_anew();
    let mut hosts = hosts();
    // End 0 takes it for its peer's, lets it in, and tells it what it has open.
    let real: Vec<_> = pair.frames_to(0).drain(..).collect();
    pair.handle(NOW, 0, Input::Received(hello.clone())).unwrap();
    pair.handle(NOW, 0, Input::Authenticated(Ok(()))).unwrap();
    let opening = hosts[0].opening();
    pair.handle(NOW, 0, opening).unwrap();
    let opening = hosts[0].opening_of(document("closed meanwhile"), 1);
    pair.handle(NOW, 0, opening).unwrap();
    let (code, reason) = (Code::DONE, String::new());
    pair.handle(NOW, 0, Input::Close { number: 1, code, reason }).unwrap();
    while pair.poll(0).is_some() {}

    pair.frames_to(0).extend(real);
    run_pair(&mut pair, &mut hosts, NOW, NOW + SECOND);
    assert!((0..2).all(|side| pair.end(side).is_live()), "{:?}", hosts.map(|host| host.ending()));
    assert!(hosts.iter().all(Host::is_in_step));
    let released = |event: &&Event| matches!(event, Event::Released { .. });
    assert_eq!(hosts[0].events.iter().filter(released).count(), 1, "what was closed can be opened again");
}

/// A datagram pair in which end 1 is live and has told of its document; its Welcome was lost, so that end 0 is not.
fn half_live(hosts: &mut [Host; 2]) -> Pair<Session> {
    let mut pair = pair_anew();
    while pair.step(NOW).unwrap().is_some() {
        answer(&mut pair, hosts, NOW);
        pair.frames_to(0).retain(|frame| frame[0] != WELCOME);
    }
    assert_eq!((pair.end(0).is_live(), pair.end(1).is_live()), (false, true));
    let opening = hosts[1].opening();
    pair.handle(NOW, 1, opening).unwrap();
    let open = pair.frames_to(0).pop_back().expect("it is said at once");
    assert_eq!(names(std::slice::from_ref(&open), DATAGRAM), ["Open"]);
    pair.handle(NOW, 0, Input::Received(open)).unwrap();
    pair
}

#[test]
fn an_old_hello_in_the_middle_of_the_handshake_does_nothing() {
    let old = earlier_session();
    let mut hosts = hosts();
    let mut pair = half_live(&mut hosts);
    pair.handle(NOW, 0, Input::Received(old[0].clone())).unwrap();
    run_pair(&mut pair, &mut hosts, NOW, NOW + SECOND);
    assert!((0..2).all(|side| pair.end(side).is_live()), "{:?}", hosts.map(|host| host.ending()));
    assert!(hosts.iter().all(Host::is_in_step));
}

#[test]
fn a_peer_that_restarts_in_the_middle_of_the_handshake_ends_the_session() {
    let mut hosts = hosts();
    let mut pair = half_live(&mut hosts);
    // What it said before must not be taken for something that the one in its place said.
    let mut anew = session_of(local(1, 77), DATAGRAM);
    let mut now = NOW;
    while now < NOW + SECOND {
        let (frames, outputs) = drain(&mut anew);
        let answers = outputs.into_iter().flat_map(|output| hosts[1].answer(output));
        answers.for_each(|input| anew.handle(now, input).unwrap());
        frames.into_iter().for_each(|frame| pair.handle(now, 0, Input::Received(frame)).unwrap());
        while let Some(output) = pair.poll(0) {
            hosts[0].answer(output).into_iter().for_each(|input| pair.handle(now, 0, input).unwrap());
        }
        feed(&mut anew, pair.frames_to(1).drain(..)).unwrap();
        now = now + 50 * MILLISECOND;
        pair.handle(now, 0, Input::Timer).unwrap();
        anew.handle(now, Input::Timer).unwrap();
    }
    assert_eq!(ending(pair.end(0)), Some((Code::RESTARTED, By::Peer)));
}

// -------------------------------------------------------------------------------------------- the host decides

#[test]
fn a_refusal_reaches_the_peer_with_code_and_reason() {
    for transport in TRANSPORTS {
        let mut pair = pair(transport);
        let mut hosts = hosts();
        let opening = hosts[1].opening();
        pair.handle(NOW, 1, opening).unwrap();
        let refuse = |side: usize, output| match output {
            Output::Authenticate { .. } if side == 0 => {
                vec![Input::Authenticated(Err((Code::UNAUTHENTICATED, String::from("the token has expired"))))]
            }
            output => hosts[side].answer(output),
        };
        pair.settle(NOW, refuse).unwrap();
        let told = pair.end(1).ending().expect("it was refused");
        assert_eq!((told.code, told.by), (Code::UNAUTHENTICATED, By::Peer));
        assert_eq!(told.reason, "the token has expired");
        assert_eq!(ending(pair.end(0)), Some((Code::UNAUTHENTICATED, By::Us)));
        assert!(!pair.end(0).is_live() && !pair.end(1).is_live());
    }
}

#[test]
fn the_token_reaches_the_host() {
    for transport in TRANSPORTS {
        let token = Some(Bytes::from_static(b"a proof of who it is"));
        let mut one = session(0, transport);
        let mut other = session_of(Local { token: token.clone(), ..local(1, 21) }, transport);
        feed(&mut one, drain(&mut other).0).unwrap();
        let (_, outputs) = drain(&mut one);
        assert_eq!(outputs, [Output::Authenticate { replica: id(1), timeline: timeline(1), token }]);
    }
}

/// A replica whose host is this test: it answers nothing by itself but the storage.
struct Hosted {
    replica: Replica,
    storage: MemoryStorage,
    now: Instant,
    frames: BTreeMap<LinkId, Vec<Bytes>>,
    questions: Vec<(Ticket, Question)>,
    ended: BTreeMap<LinkId, (Code, By)>,
    transport: Transport,
}

impl Hosted {
    fn new(config: replica::Config, transport: Transport) -> Self {
        let mut storage = Disk::new().open().unwrap();
        let identity = storage.open(Continuity::Proven, &mut Rng::new(1)).unwrap();
        let replica = Replica::new(config, identity, [3; 32]);
        let (frames, questions, ended) = (BTreeMap::new(), Vec::new(), BTreeMap::new());
        Self { replica, storage, now: NOW, frames, questions, ended, transport }
    }

    fn input(&mut self, input: replica::Input) {
        self.replica.handle(self.now, input).unwrap();
        while let Some(output) = self.replica.poll() {
            match output {
                replica::Output::Transmit { link, frame } => self.frames.entry(link).or_default().push(frame),
                replica::Output::Disconnect { link, ending } => {
                    self.ended.insert(link, (ending.code, ending.by));
                }
                replica::Output::Storage { ticket, request } => {
                    let reply = self.storage.execute(&request).map_err(|error| error.to_string());
                    self.replica.handle(self.now, replica::Input::Storage { ticket, reply }).unwrap();
                }
                replica::Output::Ask { ticket, question } => self.questions.push((ticket, question)),
                replica::Output::Event(_) => {}
            }
        }
    }

    fn connect(&mut self, link: LinkId) {
        let transport = self.transport;
        self.input(replica::Input::Connected { link, transport, token: None, upstream: false });
    }

    fn receive(&mut self, link: LinkId, frames: Vec<Bytes>) {
        frames.into_iter().for_each(|frame| self.input(replica::Input::Received { link, frame }));
    }

    fn said(&self, link: LinkId) -> Vec<&'static str> {
        self.frames.get(&link).map(|frames| names(frames, self.transport)).unwrap_or_default()
    }

    /// Exchanges frames with a peer until neither has any; the peer's host lets everyone in and opens nothing.
    fn talk(&mut self, link: LinkId, peer: &mut Session) {
        loop {
            let (frames, outputs) = drain(peer);
            let asked = outputs.iter().any(|output| matches!(output, Output::Authenticate { .. }));
            if asked {
                peer.handle(self.now, Input::Authenticated(Ok(()))).unwrap();
            }
            let heard = self.frames.remove(&link).unwrap_or_default();
            if frames.is_empty() && heard.is_empty() && !asked {
                return;
            }
            self.receive(link, frames);
            for frame in heard {
                peer.handle(self.now, Input::Received(frame)).unwrap();
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.replica.deadline().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.input(replica::Input::Timer);
        }
        self.now = end;
    }
}

const OLDER: LinkId = LinkId(1);
const NEWER: LinkId = LinkId(2);

#[test]
fn nothing_of_a_document_is_told_before_the_peer_is_accepted() {
    for transport in TRANSPORTS {
        for accepted in [true, false] {
            let config = replica::Config { peers: Admission::Ask, documents: Admission::Ask, ..Default::default() };
            let mut hosted = Hosted::new(config, transport);
            hosted.input(replica::Input::Open { document: doc(), options: Options::default() });
            hosted.input(replica::Input::Append { document: doc(), bodies: vec!["secret".into()] });
            hosted.connect(OLDER);
            // The peer says Hello and, without waiting, opens the document, and one that may not exist.
            let mut peer = session(1, transport);
            let (hello, _) = drain(&mut peer);
            hosted.receive(OLDER, hello);
            let heard = hosted.frames[&OLDER].clone();
            feed(&mut peer, heard).unwrap();
            let host = Host::new(id(1), timeline(1), 2);
            peer.handle(NOW, host.opening()).unwrap();
            peer.handle(NOW, host.opening_of(document("guessed"), 1)).unwrap();
            peer.handle(NOW, Input::Authenticated(Ok(()))).unwrap();
            hosted.receive(OLDER, drain(&mut peer).0);
            hosted.pass(2 * SECOND);

            let before = hosted.said(OLDER);
            let telling = |name: &&str| !["Hello", "Confirm"].contains(name);
            assert!(!before.iter().any(telling), "{before:?}");
            let [(ticket, Question::Peer { replica, .. })] = hosted.questions[..] else {
                panic!("only who it is may be asked yet: {:?}", hosted.questions);
            };
            assert_eq!(replica, id(1));

            let refusal = Err((Code::UNAUTHENTICATED, String::from("no")));
            let answer = if accepted { Ok(Access::Write) } else { refusal };
            hosted.input(replica::Input::Answer { ticket, answer });
            hosted.pass(SECOND);
            let said = hosted.said(OLDER)[before.len()..].to_vec();
            let asked = hosted.questions.split_off(1);
            if accepted {
                assert_eq!(said, ["Welcome"], "nor before it may have the document");
                assert_eq!(asked.len(), 2, "one question for each document that the peer opened");
                for (ticket, _) in asked {
                    hosted.input(replica::Input::Answer { ticket, answer: Ok(Access::Write) });
                }
                assert!(hosted.said(OLDER).contains(&"Open"));
            } else {
                assert_eq!((said, asked.len()), (vec!["Refuse"], 0));
            }
        }
    }
}

#[test]
fn of_two_sessions_of_one_open_the_newer_wins() {
    let mut hosted = Hosted::new(replica::Config::default(), Transport::Reliable);
    hosted.connect(OLDER);
    let mut older = session_of(local(1, 30), Transport::Reliable);
    hosted.talk(OLDER, &mut older);
    assert!(older.is_live());
    // The peer has reconnected; nobody has noticed that the old link is dead.
    hosted.connect(NEWER);
    let mut newer = session_of(local(1, 31), Transport::Reliable);
    hosted.talk(NEWER, &mut newer);
    assert!(newer.is_live());
    assert_eq!(hosted.ended, BTreeMap::from([(OLDER, (Code::REPLACED, By::Us))]));
    hosted.talk(OLDER, &mut older);
    assert_eq!(ending(&older), Some((Code::REPLACED, By::Peer)));
}

/// The same replica in a later open than that of [`local`]: a copy, or the same one restarted.
fn later_open(nonce: u64) -> Session {
    let local = Local { timeline: Timeline::new(99), previous: Some(timeline(1)), ..local(1, nonce) };
    session_of(local, Transport::Reliable)
}

#[test]
fn a_copy_of_a_live_replica_is_refused() {
    let mut hosted = Hosted::new(replica::Config::default(), Transport::Reliable);
    hosted.connect(OLDER);
    let mut older = session(1, Transport::Reliable);
    hosted.talk(OLDER, &mut older);
    hosted.connect(NEWER);
    let mut newer = later_open(31);
    hosted.talk(NEWER, &mut newer);
    assert_eq!((newer.is_live(), ending(&newer)), (false, None), "it waits");
    assert_eq!(hosted.said(OLDER), ["Ping"], "the older one is asked whether it lives");
    hosted.talk(OLDER, &mut older);
    hosted.talk(NEWER, &mut newer);
    assert_eq!(ending(&newer), Some((Code::CLONE, By::Peer)));
    assert!(older.is_live());
}

#[test]
fn a_replica_that_restarted_gets_in_when_its_old_session_shows_no_life() {
    let mut hosted = Hosted::new(replica::Config::default(), Transport::Reliable);
    hosted.connect(OLDER);
    let mut older = session(1, Transport::Reliable);
    hosted.talk(OLDER, &mut older);
    drop(older);
    hosted.connect(NEWER);
    let mut newer = later_open(31);
    hosted.talk(NEWER, &mut newer);
    hosted.pass(4 * SECOND);
    assert!(hosted.ended.is_empty(), "the older one may be slow");
    hosted.pass(SECOND);
    hosted.talk(NEWER, &mut newer);
    assert!(newer.is_live());
    assert_eq!(hosted.ended, BTreeMap::from([(OLDER, (Code::REPLACED, By::Us))]));
}

#[test]
fn a_copy_renews_and_gets_in_step() {
    let mut world = World::new(3);
    let nodes: Vec<_> = (0..2).map(|_| world.add(replica::Config::default())).collect();
    nodes.iter().for_each(|node| world.open(*node, &doc(), Options::default()));
    let (hub, original) = (nodes[0], nodes[1]);
    world.append(original, &doc(), "before the copy");
    world.join(original, hub, Medium::reliable(5 * MILLISECOND));
    converge(&mut world, &nodes, &doc(), SECOND);

    let disk = world.disk(original).backup();
    let copy = world.add_on(disk, replica::Config::default(), Continuity::Proven);
    world.open(copy, &doc(), Options::default());
    world.append(copy, &doc(), "by the copy");
    world.append(original, &doc(), "by the original");
    let id = world.id(original);
    world.join(copy, hub, Medium::reliable(5 * MILLISECOND));
    world.run_for(5 * SECOND);
    assert_eq!(world.id(original), id, "the original is left alone");
    assert_ne!(world.id(copy), id);
    let renewed = |event: &replica::Event| matches!(event, replica::Event::Renewed { before, .. } if *before == id);
    assert_eq!(count(&world, copy, renewed), 1);
    let gone = |event: &replica::Event| matches!(event, replica::Event::Disconnected { .. });
    assert_eq!(count(&world, original, gone), 0);
    // Both made an op after the copy was made, with the same id: a fork, and told.
    assert!(forks(&world, copy) > 0 && forks(&world, hub) > 0);
}
