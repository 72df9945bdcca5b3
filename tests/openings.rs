//! Documents that are closed and opened again while something is asked, taken or said about them: an answer is for the
//! opening that asked, and the others on the link go on.

mod common;

use antiphon::op::DocumentId;
use antiphon::replica::{Config, Input};
use antiphon::session::{self, Transport};
use antiphon::wire::Limits;
use common::rig::*;
use common::*;

fn other() -> DocumentId {
    document("other")
}

fn close(rig: &mut Rig, end: usize, document: &DocumentId) {
    rig.input(end, Input::Close { document: document.clone() });
}

/// Two replicas that are live and have two documents open, in which so little may be under way.
fn tight(seed: u64, op: u32) -> (Rig, usize) {
    let limits = Limits { op, window: 1 << 13, credit: 1 << 14, ..Limits::default() };
    let config = Config { session: session::Config { limits, ..session::Config::default() }, ..Config::default() };
    let mut rig = Rig::new(seed);
    for end in 0..2 {
        rig.add(config.clone());
        rig.open(end, &doc());
        rig.open(end, &other());
    }
    let wire = rig.join(0, 1, Transport::Reliable);
    rig.run_for(SECOND);
    (rig, wire)
}

/// Two replicas, of which the second reads one thing at a time: ops of the other document, for ever.
fn reading() -> Rig {
    let mut rig = Rig::new(5);
    for end in 0..2 {
        rig.add(Config { tail_max: 0, reads_max: 1, ..Config::default() });
        rig.open(end, &other());
    }
    rig.append(1, &other(), numbered(0..10, 20));
    rig.settle();
    let wire = rig.join(0, 1, Transport::Reliable);
    rig.wires[wire].paused = [true; 2];
    while rig.ends[1].replica.stats().reads == 0 {
        rig.settle();
        rig.deliver(wire, 0);
        rig.deliver(wire, 1);
    }
    rig.ends[1].stalled.insert(other());
    rig.wires[wire].paused = [false; 2];
    rig
}

#[test]
fn what_was_read_or_compared_for_an_opening_is_not_for_the_next() {
    // Where the first holds something too, the second compares heads, and reads only then.
    for held in [0, 1] {
        let mut rig = reading();
        (0..2).for_each(|end| rig.open(end, &doc()));
        rig.append(0, &doc(), numbered(100..100 + held, 20));
        rig.append(1, &doc(), numbered(0..10, 20));
        rig.settle(); // what is to be read of it waits for its turn
        close(&mut rig, 0, &doc());
        rig.settle();
        rig.open(0, &doc());
        rig.settle(); // and so does the same for the next opening
        assert_eq!((rig.tail(0, &doc()), rig.tail(0, &other())), (held, 0));
        rig.ends[1].stalled.clear();
        rig.run_for(SECOND);
        assert!(rig.same(0, 1, &doc()) && rig.same(0, 1, &other()));
        assert_eq!((rig.tail(0, &doc()), rig.endings(0), rig.endings(1)), (10 + held, vec![], vec![]));
    }
}

#[test]
fn a_document_that_is_closed_gives_back_the_credit_that_it_had() {
    // One op takes all there is, and the disk that is to write it never does.
    for closes in [0, 1] {
        let (mut rig, wire) = tight(8, 1 << 16);
        rig.ends[1].stalled.insert(doc());
        rig.append(0, &doc(), numbered(0..1, 1 << 15));
        rig.run_for(SECOND);
        assert!(rig.session(wire, 1).under_way().1 > 1 << 14, "it was taken");
        rig.append(0, &other(), numbered(0..10, 20));
        rig.run_for(SECOND);
        assert_eq!(rig.tail(1, &other()), 0, "nothing more may be sent");
        close(&mut rig, closes, &doc());
        rig.run_for(SECOND);
        assert_eq!(rig.tail(1, &other()), 10);
    }
}

#[test]
fn what_was_under_way_of_a_closed_document_holds_up_no_others() {
    let (mut rig, wire) = tight(9, Limits::default().op);
    rig.wires[wire].paused = [true; 2]; // nothing is heard from now on
    rig.append(0, &doc(), numbered(0..100, 1 << 10));
    rig.append(0, &other(), numbered(100..200, 1 << 10));
    rig.run_for(SECOND);
    let of_the_other = rig.session(wire, 0).under_way().0 - (7 << 10) - 7 * 32;
    close(&mut rig, 0, &doc());
    let (outstanding, _) = rig.session(wire, 0).under_way();
    assert!(outstanding > of_the_other, "{of_the_other} was under way besides, and now {outstanding}");
}
