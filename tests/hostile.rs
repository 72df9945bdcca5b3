//! Peers that keep to no rule: each is closed with the right code, in bounded memory, and whoever is honest goes on to be
//! served. The same bytes go to a bare session and to a replica.

mod attacks;
mod common;

use antiphon::codes::Code;
use antiphon::digest::Chain;
use antiphon::heads::Head;
use antiphon::wire::Access;
use attacks::Fate::{Closes, Ends, Lives};
use attacks::attacks;
use common::crafted::*;
use common::victim::*;
use common::*;

/// Bytes that a bare session may allocate for each byte that it is sent, and once.
const MEMORY: (u64, u64) = (100, 64 << 10);

#[test]
fn each_attack_meets_its_code() {
    let mut wrong = Vec::new();
    for (name, stage, frames, fate) in attacks() {
        for target in TARGETS {
            let mut victim = Victim::at(target, RELIABLE, stage);
            victim.sent.clear();
            let before = victim.fed;
            let used = allocation_counter::measure(|| {
                for frame in &frames {
                    victim.feed(frame.clone());
                }
            });
            let bytes = (victim.fed - before) as u64;
            if let Target::Session = target {
                assert!(used.bytes_total <= MEMORY.0 * bytes + MEMORY.1, "{name}: {used:?} for {bytes} bytes");
            }
            victim.assert_peers_fault(name);
            let (ending, closes) = (victim.ending(), victim.closes());
            let met = match fate {
                Ends(code) => ending.as_ref().is_some_and(|ending| ending.code == code),
                Closes(code) => ending.is_none() && closes.first() == Some(&code),
                Lives => ending.is_none() && closes.is_empty(),
            };
            if !met {
                wrong.push(format!("{target:?}: {name}: {fate:?} was expected, not {ending:?}, {closes:?}"));
            }
            // What is left of it goes on, or stays quiet.
            victim.wait(SECOND);
            victim.assert_peers_fault(name);
            if ending.is_some() {
                victim.feed(live(0, 1, b"x"));
                victim.feed(hello(limits()));
            }
            victim.still_serves();
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_peer_that_may_only_read_changes_nothing() {
    for target in TARGETS {
        let mut victim = Victim::at(target, Setup { grant: Access::Read, ..RELIABLE }, Stage::Other);
        victim.feed(live(0, 1, b"x"));
        victim.wait(SECOND);
        assert_eq!((victim.ending(), victim.closes()), (None, vec![Code::READ_ONLY]), "{target:?}");
    }
}

#[test]
fn the_right_welcome_twice_is_refused() {
    for target in TARGETS {
        let mut victim = Victim::at(target, RELIABLE, Stage::Live);
        let welcome = victim.script(Stage::Live).remove(1);
        victim.feed(welcome);
        assert_eq!(victim.ending().map(|ending| ending.code), Some(Code::UNEXPECTED), "{target:?}");
    }
}

#[test]
fn more_documents_than_allowed_are_denied() {
    for target in TARGETS {
        let mut victim = Victim::at(target, RELIABLE, Stage::Live);
        for number in 0..20 {
            victim.feed(open(number + 100, &document(&format!("number-{number}")), |_| {}));
        }
        let denied = victim.closes();
        assert!((12..=13).contains(&denied.len()), "{target:?}: {denied:?}"); // the app may have one open itself
        assert!(denied.iter().all(|code| *code == Code::TOO_MANY_DOCUMENTS));
        assert_eq!(victim.ending(), None);
    }
}

/// What a peer holds of our own ops is the one thing that nobody else can know. A lie about it costs the victim its
/// name, and no op.
#[test]
fn a_lie_about_our_own_ops_costs_a_name_and_no_op() {
    let mut victim = Victim::at(Target::Replica, RELIABLE, Stage::Live);
    let before = victim.rig().ends[0].replica.id();
    let head = Head { seq: u64::MAX, chain: Chain(u64::MAX) };
    victim.feed(open(OURS, &doc(), |open| open.own = head.into()));
    assert_eq!((victim.ending(), victim.closes()), (None, vec![Code::SET_BACK]), "it is asked for the proof");
    assert_ne!(victim.rig().ends[0].replica.id(), before);
    victim.still_serves();
    assert_eq!(victim.rig().tail(0, &doc()), OWN_OPS + 1);
}
