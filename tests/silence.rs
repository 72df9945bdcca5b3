//! Silence: a peer of which nothing is heard is asked and then given up, whoever is only quiet is not, and a host that
//! does not answer holds nobody up for ever.

mod common;

use std::time::Duration;

use antiphon::Machine;
use antiphon::codes::Code;
use antiphon::replica;
use antiphon::session::{By, Config, Input, Transport};
use antiphon_sim::world::Medium;
use common::sessions::*;
use common::*;

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
