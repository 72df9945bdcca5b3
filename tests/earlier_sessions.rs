//! Frames of an earlier session, and of a peer that starts anew: on datagrams both can come at any time, and no old frame
//! does anything in a session that is not its own.

mod common;

use antiphon::codes::Code;
use antiphon::session::{By, Event, Input};
use antiphon::{Machine, Session};
use antiphon_memory::Pair;
use bytes::Bytes;
use common::sessions::*;
use common::*;

const HELLO: u8 = 0x01;
const WELCOME: u8 = 0x02;

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

#[test]
fn hellos_that_take_turns_end_in_a_new_session_and_not_in_confusion() {
    let old = earlier_session();
    let hello = old.iter().find(|frame| frame[0] == HELLO).expect("sessions begin with Hello");
    let (mut pair, mut hosts) = (pair_anew(), hosts());
    let real: Vec<_> = pair.frames_to(0).drain(..).collect();
    let opening = hosts[0].opening();
    pair.handle(NOW, 0, opening).unwrap();
    // What end 1 is told arrives; of what it says only Hello.
    for frame in [&real[0], hello, &real[0]] {
        pair.handle(NOW, 0, Input::Received(frame.clone())).unwrap();
        loop {
            answer(&mut pair, &mut hosts, NOW);
            pair.frames_to(0).clear();
            let Some(told) = pair.frames_to(1).pop_front() else { break };
            pair.handle(NOW, 1, Input::Received(told)).unwrap();
        }
    }
    assert_eq!(ending(pair.end(0)), Some((Code::RESTARTED, By::Peer)), "what it was told, it can't be told again");
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
