//! Loading a log takes its time, and may be asked for again before it is done: the last answer counts, and no other.

mod common;

use antiphon::replica::{Config, Event, Input, LinkId};
use antiphon::session::Transport;
use antiphon::storage::{Reply, Request};
use common::rig::*;
use common::*;

/// A replica whose disk stalls from now on, with an open on a link under way, and then an append; a write may
/// take a second.
fn stalled() -> Rig {
    let mut rig = Rig::new(19);
    for end in 0..2 {
        rig.add(Config { write_deadline: SECOND, ..Config::default() });
        rig.open(end, &doc());
    }
    rig.settle();
    rig.ends[0].stalled.insert(doc());
    rig.join(0, 1, Transport::Reliable);
    rig.run_for(10 * MILLISECOND);
    rig.append(0, &doc(), numbered(0..1, 20));
    rig
}

#[test]
fn what_the_storage_said_of_a_log_before_it_failed_again_means_nothing() {
    let mut rig = stalled();
    rig.run_for(2 * SECOND);
    let failures = |rig: &Rig| rig.ends[0].events.iter().filter(|event| matches!(event, Event::Failed { .. })).count();
    assert_eq!(failures(&rig), 1, "it was too late, and the log was asked for again");
    // Before the answer to that comes a failure of what was asked long ago.
    rig.ends[0].answers = Some(Box::new(|request| matches!(request, Request::Cursor { .. }).then_some(Reply::Written)));
    rig.ends[0].stalled.clear();
    rig.settle_with(&mut |rig| _ = rig.ends[0].stalled.insert(doc()));
    assert_eq!(failures(&rig), 2);
    rig.run_for(SECOND);
    rig.ends[0].answers = None;
    rig.ends[0].events.clear();
    rig.ends[0].stalled.clear();
    rig.run_for(SECOND);
    let loaded = |event: &&Event| matches!(event, Event::Opened { .. } | Event::Recovered { .. });
    assert_eq!(rig.ends[0].events.iter().filter(loaded).count(), 1, "{:?}", rig.ends[0].events);
    assert!(rig.same(0, 1, &doc()));
}

#[test]
fn a_log_that_is_long_in_loading_after_a_reset_is_no_write_that_takes_too_long() {
    let mut rig = stalled();
    rig.ends[0].stalled.clear();
    rig.run_for(100 * MILLISECOND);
    rig.input(0, Input::Reset { document: doc(), link: LinkId(0) });
    rig.settle_with(&mut |rig| {
        if rig.ends[0].replica.document(&doc()).is_none() {
            rig.ends[0].stalled.insert(doc());
        }
    });
    rig.run_for(10 * SECOND);
    rig.ends[0].stalled.clear();
    rig.run_for(SECOND);
    assert!(!rig.ends[0].events.iter().any(|event| matches!(event, Event::Failed { .. })));
    assert!(rig.ends[0].events.iter().any(|event| matches!(event, Event::Mended { .. })));
}
