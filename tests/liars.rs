//! What a peer says of our own ops and positions, nobody else can check. A liar costs its victim a name at most, and the
//! victim's other sessions nothing that they would notice.

mod common;

use antiphon::codes::Code;
use antiphon::op::{Cursor, ReplicaId, Timeline};
use antiphon::replica::{Config, Event, Input, LinkId};
use antiphon::session::{self, By, Local, Session, Transport};
use antiphon::wire::control::Fork;
use antiphon::wire::{Access, Message};
use antiphon::{Instant, Machine};
use common::rig::*;
use common::*;

const RELIABLE: Transport = Transport::Reliable;
const OPS: u8 = 5;

/// A session that keeps to the protocol in all but what its host tells it.
struct Liar {
    session: Session,
    host: Host,
    wire: usize,
}

impl Liar {
    fn new(rig: &mut Rig, victim: usize, number: u64, host: Host) -> Self {
        let id = ReplicaId([0xee; 16]);
        let timeline = Timeline::new(900);
        let local = Local { replica: id, timeline, previous: None, nonce: number, token: None };
        let session = Session::new(rig.now, session::Config::default(), local);
        let wire = rig.stranger(victim, RELIABLE);
        Self { session, host, wire }
    }

    fn input(&mut self, now: Instant, input: session::Input) {
        // What it was about may be closed by now.
        _ = self.session.handle(now, input);
    }

    /// Talks until neither end has anything to say. `lie` may put in a word at each event.
    fn talk(&mut self, rig: &mut Rig, lie: &mut dyn FnMut(&session::Event) -> Vec<session::Input>) {
        loop {
            let mut quiet = true;
            while let Some(output) = self.session.poll() {
                quiet = false;
                let inputs = match output {
                    session::Output::Transmit(frame) => {
                        rig.feed(self.wire, frame);
                        continue;
                    }
                    session::Output::Event(event) => lie(&event),
                    other => self.host.answer(other),
                };
                inputs.into_iter().for_each(|input| self.input(rig.now, input));
            }
            rig.settle();
            while let Some(frame) = rig.wires[self.wire].queues[0].pop_front() {
                quiet = false;
                self.input(rig.now, session::Input::Received(frame));
            }
            if quiet {
                return;
            }
        }
    }

    fn leave(self, rig: &mut Rig, victim: usize) {
        rig.input(victim, Input::Disconnected { link: LinkId(self.wire as u64) });
    }
}

/// A victim and an honest peer of it, in step.
fn victim_and_friend(seed: u64) -> (Rig, usize, usize) {
    let mut rig = Rig::new(seed);
    let (victim, friend) = (rig.add(Config::default()), rig.add(Config::default()));
    let wire = rig.join(victim, friend, RELIABLE);
    for end in [victim, friend] {
        rig.open(end, &doc());
        rig.append(end, &doc(), numbered(0..OPS.into(), 20));
    }
    rig.run_for(SECOND);
    assert!(rig.same(victim, friend, &doc()));
    rig.wires[wire].trace = Some(Vec::new());
    (rig, victim, friend)
}

fn renewals(rig: &Rig, end: usize) -> usize {
    rig.ends[end].events.iter().filter(|event| matches!(event, Event::Renewed { .. })).count()
}

/// Nothing but ops and acknowledgements went between victim and friend, and they hold the same.
fn assert_undisturbed(rig: &mut Rig, victim: usize, friend: usize) {
    rig.append(victim, &doc(), numbered(100..101, 20));
    rig.append(friend, &doc(), numbered(200..201, 20));
    rig.run_for(SECOND);
    assert!(rig.same(victim, friend, &doc()));
    let bodies = |end: usize| rig.ops(end, &doc()).into_iter().filter_map(|op| op.body.bytes().cloned());
    let both: Vec<_> = numbered(100..101, 20).chain(numbered(200..201, 20)).collect();
    assert!(both.iter().all(|body| bodies(friend).any(|held| held == *body)));
    let disturbances: Vec<_> = rig.wires[0]
        .trace
        .iter()
        .flatten()
        .filter_map(|traced| match traced {
            Traced::Sent(_, frame) => Some(unwrapped(frame, RELIABLE).name()),
            Traced::Delivered(..) => None,
        })
        .filter(|name| !["Author", "Changes", "Ack", "Credit", "Ping", "Pong"].contains(name))
        .collect();
    assert_eq!(disturbances, Vec::<&str>::new());
}

#[test]
fn who_claims_to_hold_ops_of_ours_disturbs_nobody_else() {
    // More ops of ours than there are; as many, and others.
    for (seed, claimed) in [(71, OPS * 10), (72, OPS)] {
        let (mut rig, victim, friend) = victim_and_friend(seed);
        for number in 0..20 {
            let before = (renewals(&rig, victim), rig.ends[victim].replica.id());
            let host = Host::new(before.1, Timeline::new(900), claimed);
            let mut liar = Liar::new(&mut rig, victim, number, host);
            // It opens the document, closes it and opens it again, as long as it is let.
            let mut left = 5;
            let opening = liar.host.opening();
            liar.talk(&mut rig, &mut |event| match event {
                session::Event::Connected { .. } => vec![opening.clone()],
                session::Event::DocumentClosed { .. } | session::Event::Released { .. } if left > 0 => {
                    left -= 1;
                    vec![opening.clone()]
                }
                session::Event::Opened { number, .. } if left > 0 => {
                    let (code, reason) = (Code::DONE, String::new());
                    vec![session::Input::Close { number: *number, code, reason }]
                }
                _ => Vec::new(),
            });
            liar.leave(&mut rig, victim);
            assert!(renewals(&rig, victim) <= before.0 + 1, "one name a session");
            assert!(number > 0 || rig.ends[victim].replica.id() != before.1, "it could have been true");
        }
        assert_undisturbed(&mut rig, victim, friend);
    }
}

#[test]
fn who_claims_a_fork_of_ours_disturbs_nobody_else() {
    let (mut rig, victim, friend) = victim_and_friend(73);
    for number in 0..20 {
        let before = renewals(&rig, victim);
        let us = rig.ends[victim].replica.id();
        let mut liar =
            Liar::new(&mut rig, victim, number, Host::new(ReplicaId([0xee; 16]), Timeline::new(900 + number), 1));
        liar.talk(&mut rig, &mut |_| Vec::new());
        for _ in 0..5 {
            liar.input(rig.now, liar.host.opening());
            liar.talk(&mut rig, &mut |_| Vec::new());
            let authors = us.0.into_iter().chain(rig.ends[victim].replica.id().0).collect();
            rig.feed(liar.wire, Message::Fork(Fork { document: 0, authors }).encode());
            liar.input(rig.now, session::Input::Close { number: 0, code: Code::DONE, reason: String::new() });
            liar.talk(&mut rig, &mut |_| Vec::new());
        }
        assert!(renewals(&rig, victim) <= before + 1, "one name a session");
        assert!(number > 0 || rig.ends[victim].replica.id() != us, "it could have been true");
        liar.leave(&mut rig, victim);
    }
    assert_undisturbed(&mut rig, victim, friend);
}

#[test]
fn who_claims_lost_tails_is_believed_so_often_and_then_shown_out() {
    const BELIEVED: usize = 64;
    let (mut rig, victim, friend) = victim_and_friend(74);
    let mut liar = Liar::new(&mut rig, victim, 1, Host::new(ReplicaId([0xee; 16]), Timeline::new(900), 1));
    let first = liar.host.opening();
    // Whatever timeline the victim's log is in: the liar holds far more of it.
    let mut timeline = rig.identity(victim).opens.current();
    let mut ended = None;
    for _ in 0..10 * BELIEVED {
        let mut cursors = vec![timeline];
        while let Some(frame) = rig.wires[liar.wire].queues[0].pop_front() {
            if let Message::Open(open) = unwrapped(&frame, RELIABLE) {
                cursors.extend(open.timelines.map(|own| own.current));
            }
            liar.input(rig.now, session::Input::Received(frame));
        }
        timeline = cursors.pop().expect("there is one");
        let cursor = Some(Cursor { timeline, position: 1 << 40 });
        let opening = || match first.clone() {
            session::Input::Open(mut opening) => {
                (opening.cursor, opening.access) = (cursor, Access::Read);
                session::Input::Open(opening)
            }
            other => other,
        };
        while let Some(output) = liar.session.poll() {
            let inputs = match output {
                session::Output::Transmit(frame) => {
                    rig.feed(liar.wire, frame);
                    continue;
                }
                session::Output::Event(session::Event::PeerOpened { .. }) => vec![opening()],
                session::Output::Event(session::Event::Closed(ending)) => {
                    ended = Some((ending.code, ending.by));
                    continue;
                }
                session::Output::Event(_) => continue,
                other => liar.host.answer(other),
            };
            inputs.into_iter().for_each(|input| liar.input(rig.now, input));
        }
        rig.settle();
    }
    assert_eq!(ended, Some((Code::UNEXPECTED, By::Peer)));
    let reopened = rig.ends[friend].events.iter().filter(|event| matches!(event, Event::InStep { .. })).count();
    assert!(reopened >= BELIEVED / 2, "each could have been true: {reopened}");
    rig.run_for(SECOND);
    rig.append(victim, &doc(), numbered(100..101, 20));
    rig.run_for(SECOND);
    assert!(rig.same(victim, friend, &doc()));
    assert!(rig.endings(friend).is_empty(), "the friend's session went on");
}
