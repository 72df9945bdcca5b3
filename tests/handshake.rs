//! From the first frame to live: which version is spoken, what is no way to begin, and who may come in.

mod common;

use antiphon::Machine;
use antiphon::codes::Code;
use antiphon::replica::{self, Admission, Question};
use antiphon::rng::Rng;
use antiphon::session::{BYTES_BEFORE_WELCOME, By, Event, Input, Local, Output, Transport};
use antiphon::wire::{Access, Message, Ping, Tag};
use bytes::Bytes;
use common::rig::Rig;
use common::sessions::*;
use common::*;

// -------------------------------------------------------------------------------------------- versions

/// The Hello in a frame, with other versions.
fn with_versions(frame: &Bytes, transport: Transport, min: u16, max: u16) -> Bytes {
    let Some(Message::Hello(mut hello)) = messages([frame], transport).pop() else {
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
// -------------------------------------------------------------------------------------------- what is no Hello

#[test]
fn garbage_before_hello_ends_a_reliable_session() {
    let ping = Message::Ping(Ping { token: 1, blocked: false }).encode();
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

// -------------------------------------------------------------------------------------------- who may come in

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
#[test]
fn nothing_of_a_document_is_told_before_the_peer_is_accepted() {
    for transport in TRANSPORTS {
        for accepted in [true, false] {
            let config = replica::Config { peers: Admission::Ask, documents: Admission::Ask, ..Default::default() };
            let mut rig = Rig::new(1);
            let end = rig.add(config);
            rig.ends[end].questions = Some(Vec::new());
            rig.open(end, &doc());
            rig.append(end, &doc(), [Bytes::from_static(b"secret")]);
            let wire = rig.stranger(end, transport);
            // The peer says Hello and, without waiting, opens the document, and one that may not exist.
            let mut peer = session(1, transport);
            let (hello, _) = drain(&mut peer);
            hello.into_iter().for_each(|frame| rig.feed(wire, frame));
            feed(&mut peer, rig.wires[wire].queues[0].clone()).unwrap();
            let host = Host::new(id(1), timeline(1), 2);
            peer.handle(NOW, host.opening()).unwrap();
            peer.handle(NOW, host.opening_of(document("guessed"), 1)).unwrap();
            peer.handle(NOW, Input::Authenticated(Ok(()))).unwrap();
            drain(&mut peer).0.into_iter().for_each(|frame| rig.feed(wire, frame));
            rig.run_for(2 * SECOND);

            let said = |rig: &Rig| names(&rig.wires[wire].queues[0], transport);
            let before = said(&rig);
            let telling = |name: &&str| !["Hello", "Confirm"].contains(name);
            assert!(!before.iter().any(telling), "{before:?}");
            let asked = |rig: &mut Rig| rig.ends[end].questions.replace(Vec::new()).expect("they are kept");
            let questions = asked(&mut rig);
            let [(ticket, Question::Peer { replica, .. })] = questions[..] else {
                panic!("only who it is may be asked yet: {questions:?}");
            };
            assert_eq!(replica, id(1));

            let refusal = Err((Code::UNAUTHENTICATED, String::from("no")));
            let answer = if accepted { Ok(Access::Write) } else { refusal };
            rig.input(end, replica::Input::Answer { ticket, answer });
            rig.run_for(SECOND);
            let since: Vec<_> = said(&rig)[before.len()..].iter().copied().filter(telling).collect();
            let questions = asked(&mut rig);
            if accepted {
                assert_eq!(since, ["Welcome"], "nor before it may have the document");
                assert_eq!(questions.len(), 2, "one question for each document that the peer opened");
                for (ticket, _) in questions {
                    rig.input(end, replica::Input::Answer { ticket, answer: Ok(Access::Write) });
                }
                rig.settle();
                assert!(said(&rig).contains(&"Open"));
            } else {
                assert_eq!((since, questions.len()), (vec!["Refuse"], 0));
            }
        }
    }
}
