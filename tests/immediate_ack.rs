//! Who waits for an acknowledgement has it as soon as it is true, and no sooner; nobody else gets more of them for it.

mod common;

use std::time::Duration;

use antiphon::replica::{Config, Event, Input, LinkId};
use antiphon::session::{self, Transport};
use antiphon::wire::{ImmediateAck, Message};
use common::crafted::{OURS, live};
use common::rig::*;
use common::victim::{RELIABLE, Stage, TARGETS, Victim};
use common::*;

const WRITER: usize = 0;
const KEEPER: usize = 1;

/// Two replicas that have the document open and are in step, with nothing left to be said.
fn joined(transport: Transport) -> Rig {
    let mut rig = Rig::new(3);
    for end in [WRITER, KEEPER] {
        rig.add(Config::default());
        rig.open(end, &doc());
    }
    rig.join(WRITER, KEEPER, transport);
    rig.run_for(SECOND);
    rig.wires[0].trace = Some(Vec::new());
    rig
}

fn wait_for_ack(rig: &mut Rig) {
    rig.input(WRITER, Input::ImmediateAck { document: doc(), link: LinkId(0) });
}

/// How far the keeper has acknowledged the writer's log, as the writer's app knows.
fn acknowledged(rig: &Rig) -> u64 {
    let positions = rig.ends[WRITER].events.iter().filter_map(|event| match event {
        Event::Acknowledged { position, .. } => Some(*position),
        _ => None,
    });
    positions.max().unwrap_or(0)
}

/// The acknowledgements that the keeper has sent.
fn acks(rig: &Rig, transport: Transport) -> usize {
    let trace = rig.wires[0].trace.as_ref().expect("it is kept");
    let sent = trace.iter().filter_map(|traced| match traced {
        Traced::Sent(KEEPER, frame) => Some(unwrapped(frame, transport)),
        _ => None,
    });
    sent.filter(|message| matches!(message, Message::Ack(_))).count()
}

#[test]
fn who_waits_is_told_at_once_and_who_does_not_after_the_delay() {
    for transport in [Transport::Reliable, Transport::Datagram { mtu: 1200 }] {
        let mut rig = joined(transport);
        let delay = session::Config::default().ack_delay;
        rig.append(WRITER, &doc(), numbered(0..1, 20));
        rig.settle();
        assert_eq!(acknowledged(&rig), 0, "it may be held back");
        rig.run_for(delay);
        assert_eq!(acknowledged(&rig), 1);

        rig.append(WRITER, &doc(), numbered(1..2, 20));
        wait_for_ack(&mut rig);
        rig.settle();
        assert_eq!(acknowledged(&rig), 2, "no time has passed");
    }
}

#[test]
fn what_need_not_be_sent_is_told_with_the_acknowledgement_that_is_waited_for() {
    let mut rig = joined(Transport::Reliable);
    rig.ends[KEEPER].stalled.insert(doc());
    rig.append(WRITER, &doc(), numbered(0..3, 20));
    wait_for_ack(&mut rig);
    rig.settle();
    rig.ends[KEEPER].stalled.clear();
    rig.settle();
    assert_eq!((acknowledged(&rig), acks(&rig, Transport::Reliable)), (3, 1));
    // Who had what it waited for leaves, and knows how far it has the keeper's log.
    rig.input(WRITER, Input::Disconnected { link: LinkId(0) });
    rig.settle();
    let cursor = rig.cursor(WRITER, &doc(), rig.identity(KEEPER).replica);
    assert_eq!(cursor.map(|cursor| cursor.position), Some(3));
}

#[test]
fn no_acknowledgement_is_early_because_somebody_waits_for_it() {
    let mut rig = joined(Transport::Reliable);
    rig.ends[KEEPER].stalled.insert(doc());
    rig.append(WRITER, &doc(), numbered(0..1, 20));
    wait_for_ack(&mut rig);
    rig.run_for(SECOND);
    assert_eq!(acknowledged(&rig), 0, "it is not durable");
    rig.ends[KEEPER].stalled.clear();
    rig.settle();
    assert_eq!(acknowledged(&rig), 1, "as soon as it is durable, and no time later");
}

#[test]
fn what_is_not_yet_durable_here_is_waited_for_too() {
    let mut rig = joined(Transport::Reliable);
    rig.ends[WRITER].stalled.insert(doc());
    for number in 0..3 {
        rig.append(WRITER, &doc(), numbered(number..number + 1, 20));
    }
    wait_for_ack(&mut rig);
    rig.append(WRITER, &doc(), numbered(3..4, 20)); // this one nobody waits for, but it is written with the others
    rig.ends[WRITER].stalled.clear();
    rig.settle();
    assert!(acknowledged(&rig) >= 3, "no time has passed: {}", acknowledged(&rig));
}

#[test]
fn who_waits_before_the_document_is_open_with_the_peer_is_told_at_once_too() {
    // However far the two have got with each other: neither Open is there, or one, or both.
    for frames in 0..8 {
        let mut rig = Rig::new(3);
        for end in [WRITER, KEEPER] {
            rig.add(Config::default());
            rig.open(end, &doc());
        }
        rig.join(WRITER, KEEPER, Transport::Reliable);
        rig.wires[0].paused = [true; 2];
        rig.settle();
        for _ in 0..frames {
            [WRITER, KEEPER].into_iter().for_each(|side| _ = rig.deliver(0, side));
            rig.settle();
        }
        rig.append(WRITER, &doc(), numbered(0..1, 20));
        rig.settle();
        wait_for_ack(&mut rig);
        rig.wires[0].paused = [false; 2];
        rig.settle();
        // Before both have said Hello there is nobody to wait for.
        assert_eq!(acknowledged(&rig), u64::from(frames > 0), "after {frames} frames of each");
    }
}

#[test]
fn who_waits_is_told_at_once_though_the_log_ends_with_ops_of_the_peer() {
    let mut rig = joined(Transport::Reliable);
    rig.append(WRITER, &doc(), numbered(0..1, 20));
    rig.append(KEEPER, &doc(), numbered(1..2, 20));
    rig.settle();
    assert_eq!(rig.ops(WRITER, &doc()).last().map(|op| op.id.author), Some(rig.identity(KEEPER).replica));
    wait_for_ack(&mut rig);
    rig.settle();
    assert!(acknowledged(&rig) >= 1);
}

#[test]
fn a_thousand_ops_of_which_the_last_is_waited_for_cost_few_acknowledgements() {
    let mut rig = joined(Transport::Reliable);
    for number in 0..1000 {
        rig.append(WRITER, &doc(), numbered(number..number + 1, 20));
        rig.settle();
    }
    let before = acks(&rig, Transport::Reliable);
    wait_for_ack(&mut rig);
    rig.settle();
    assert_eq!(acknowledged(&rig), 1000);
    assert_eq!(acks(&rig, Transport::Reliable), before + 1);
}

#[test]
fn a_lost_word_costs_the_delay_and_no_more() {
    let transport = Transport::Datagram { mtu: 1200 };
    let mut rig = joined(transport);
    rig.wires[0].loses = Some(Box::new(move |side, frame| {
        side == WRITER && matches!(unwrapped(frame, transport), Message::ImmediateAck(_))
    }));
    rig.append(WRITER, &doc(), numbered(0..1, 20));
    wait_for_ack(&mut rig);
    rig.settle();
    assert_eq!(acknowledged(&rig), 0);
    rig.run_for(session::Config::default().ack_delay);
    assert_eq!(acknowledged(&rig), 1);
}

#[test]
fn to_wait_where_nothing_is_open_does_nothing() {
    let mut rig = joined(Transport::Reliable);
    rig.append(WRITER, &doc(), numbered(0..1, 20));
    rig.input(WRITER, Input::ImmediateAck { document: document("other"), link: LinkId(0) });
    rig.input(WRITER, Input::ImmediateAck { document: doc(), link: LinkId(9) });
    rig.settle();
    assert_eq!(acknowledged(&rig), 0);
}

#[test]
fn who_asks_for_it_again_and_again_gets_no_more_of_them() {
    for target in TARGETS {
        let mut victim = Victim::at(target, RELIABLE, Stage::Opened);
        victim.wait(Duration::from_secs(1));
        victim.sent.clear();
        let ask = |to| Message::ImmediateAck(ImmediateAck { document: OURS, to }).encode();
        victim.feed(live(0, 1, b"an op"));
        for to in [1, 0, u64::MAX, 1 << 61, 1] {
            (0..1000).for_each(|_| victim.feed(ask(to)));
        }
        victim.wait(Duration::from_secs(1));
        let acks = victim.sent.iter().filter(|message| matches!(message, Message::Ack(_))).count();
        assert!((1..=3).contains(&acks), "{target:?}: {acks} acknowledgements of one op");
        assert_eq!(victim.ending(), None);
    }
}
