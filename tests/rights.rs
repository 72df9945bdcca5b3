//! Who has a part in a document: what the host is asked, and that without its word nothing is told and nothing taken.

mod common;

use std::cell::RefCell;
use std::rc::Rc;

use antiphon::Machine;
use antiphon::codes::Code;
use antiphon::op::ReplicaId;
use antiphon::replica::{Admission, Config, Event, Input, LinkId, Misuse, Options, Question};
use antiphon::session::{self, By, Transport};
use antiphon::wire::{Access, Message};
use antiphon_sim::world::Medium;
use common::rig::*;
use common::*;

fn careful() -> Config {
    Config { documents: Admission::Ask, ..Config::default() }
}

/// A question about the document: on which link, by whom, and to do what.
type Asked = (LinkId, ReplicaId, Access);

/// A host that lets some peers have so much of the document, and others nothing; and what it is asked.
fn asked(rig: &mut Rig, end: usize, lets: impl Fn(ReplicaId) -> Option<Access> + 'static) -> Rc<RefCell<Vec<Asked>>> {
    let asked = Rc::new(RefCell::new(Vec::new()));
    let heard = asked.clone();
    rig.ends[end].decides = Box::new(move |question| match question {
        Question::Document { link, replica, document, access, .. } if *document == doc() => {
            heard.borrow_mut().push((*link, *replica, *access));
            lets(*replica).ok_or_else(|| (Code::FORBIDDEN, String::from("not for you")))
        }
        other => panic!("{other:?}"),
    });
    asked
}

/// A host with a document that its app has open, and two peers, of which it lets the first have so much of it.
fn hosted(access: Access, opened_first: bool) -> (Rig, [usize; 3], Rc<RefCell<Vec<Asked>>>) {
    let mut rig = Rig::new(61);
    let ends = [rig.add(careful()), rig.add(Config::default()), rig.add(Config::default())];
    let friend = rig.ends[ends[1]].replica.id();
    let asked = asked(&mut rig, ends[0], move |peer| (peer == friend).then_some(access));
    let open = |rig: &mut Rig| {
        rig.open(ends[0], &doc());
        rig.append(ends[0], &doc(), numbered(0..3, 20));
        rig.settle();
    };
    if opened_first {
        open(&mut rig);
    }
    for peer in [1, 2] {
        let wire = rig.join(ends[0], ends[peer], Transport::Reliable);
        rig.wires[wire].trace = Some(Vec::new());
    }
    rig.run_for(SECOND);
    if !opened_first {
        open(&mut rig);
    }
    (rig, ends, asked)
}

#[test]
fn a_document_of_the_apps_is_told_only_to_whom_the_host_lets_have_it() {
    for opened_first in [true, false] {
        let (mut rig, [host, friend, stranger], asked) = hosted(Access::Write, opened_first);
        let peers = [friend, stranger].map(|end| rig.ends[end].replica.id());
        assert_eq!(
            *asked.borrow(),
            [(LinkId(0), peers[0], Access::Write), (LinkId(1), peers[1], Access::Write)],
            "once a peer"
        );
        rig.run_for(SECOND);
        let opens = |wire: usize| {
            let sent = rig.wires[wire].trace.iter().flatten().filter(|traced| match traced {
                Traced::Sent(0, frame) => matches!(unwrapped(frame, Transport::Reliable), Message::Open(_)),
                _ => false,
            });
            sent.count()
        };
        assert_eq!((opens(0), opens(1)), (1, 0), "the stranger is not even told that there is such a document");

        for end in [friend, stranger] {
            rig.open(end, &doc());
            rig.append(end, &doc(), numbered(10..12, 20));
        }
        rig.run_for(SECOND);
        assert!(rig.same(host, friend, &doc()));
        assert_eq!(rig.tail(host, &doc()), 5, "nothing was taken from the stranger");
        assert_eq!(rig.tail(stranger, &doc()), 2, "and nothing given");
        let denied = rig.ends[stranger].events.iter().any(
            |event| matches!(event, Event::Closed { code: Code::FORBIDDEN, by: By::Peer, reason, .. } if reason == "not for you"),
        );
        assert!(denied, "who asks is told");
    }
}

#[test]
fn who_may_only_read_a_document_of_the_apps_is_read_to_and_not_heard() {
    for opened_first in [true, false] {
        let (mut rig, [host, reader, _], _) = hosted(Access::Read, opened_first);
        rig.open_with(reader, &doc(), Options { access: Access::Read, ..Options::default() });
        rig.run_for(SECOND);
        assert!(rig.same(host, reader, &doc()), "it reads");

        // Now it says that it writes.
        let (mut rig, [host, writer, _], _) = hosted(Access::Read, opened_first);
        rig.open(writer, &doc());
        rig.append(writer, &doc(), numbered(10..12, 20));
        rig.run_for(SECOND);
        assert_eq!(rig.tail(host, &doc()), 3, "nothing of it was taken");
        assert!(rig.endings(host).is_empty(), "which is no reason to end the session");
    }
}

#[test]
fn who_only_reads_is_told_that_it_holds_everything() {
    for medium in [Medium::reliable(20 * MILLISECOND), Medium::datagram(FAULTLESS)] {
        let (mut world, nodes) = world(7, 1);
        let reader = world.add(Config::default());
        world.open(reader, &doc(), Options { access: Access::Read, ..Options::default() });
        world.append(nodes[0], &doc(), "before");
        world.join(reader, nodes[0], medium);
        world.run_for(SECOND);
        let before = in_steps(&world, reader);
        assert!(before > 0 && in_steps(&world, nodes[0]) > 0);
        world.append(nodes[0], &doc(), "live");
        world.run_for(SECOND);
        assert!(same_on_disks(&world, &[reader, nodes[0]], &doc()) && in_steps(&world, reader) > before);
    }
}

/// A host that is asked and does not answer yet, and a peer, joined and live.
fn undecided(seed: u64) -> (Rig, usize, usize) {
    let mut rig = Rig::new(seed);
    let (host, peer) = (rig.add(careful()), rig.add(Config::default()));
    rig.ends[host].questions = Some(Vec::new());
    let wire = rig.join(host, peer, Transport::Reliable);
    rig.wires[wire].trace = Some(Vec::new());
    rig.run_for(SECOND);
    (rig, host, peer)
}

fn opens_sent(rig: &Rig, wire: usize) -> usize {
    let sent = rig.wires[wire].trace.iter().flatten().filter(|traced| match traced {
        Traced::Sent(0, frame) => matches!(unwrapped(frame, Transport::Reliable), Message::Open(_)),
        _ => false,
    });
    sent.count()
}

#[test]
fn a_late_grant_opens_nothing_that_was_closed_meanwhile() {
    // The one who had the document open is the host's app, and then the peer's.
    for of_host in [true, false] {
        let (mut rig, host, peer) = undecided(63);
        let opener = if of_host { host } else { peer };
        rig.open(opener, &doc());
        rig.append(opener, &doc(), numbered(0..3, 20));
        rig.run_for(SECOND);
        let (ticket, _) = rig.ends[host].questions.as_mut().expect("they are kept").remove(0);
        rig.input(opener, Input::Close { document: doc() });
        rig.run_for(SECOND);
        rig.input(host, Input::Answer { ticket, answer: Ok(Access::Write) });
        rig.run_for(SECOND);
        assert_eq!(opens_sent(&rig, 0), 0);
        assert_eq!(rig.tail(if of_host { peer } else { host }, &doc()), 0, "nothing was told");
    }
}

#[test]
fn while_the_host_decides_it_is_asked_once() {
    let (mut rig, host, peer) = undecided(64);
    rig.open(host, &doc());
    for _ in 0..10 {
        rig.open(peer, &doc());
        rig.run_for(SECOND);
        rig.input(peer, Input::Close { document: doc() });
        rig.run_for(SECOND);
    }
    assert_eq!(rig.ends[host].questions.as_ref().map(Vec::len), Some(1));
}

#[test]
fn what_one_replica_may_have_another_on_its_path_is_not_told() {
    use antiphon::wire::Tag;
    let datagram = Transport::Datagram { mtu: 1200 };
    let mut rig = Rig::new(65);
    let host = rig.add(careful());
    rig.open(host, &doc());
    rig.append(host, &doc(), numbered(0..3, 20));
    rig.settle();
    let wire = rig.stranger(host, datagram);
    let asked = asked(&mut rig, host, |replica| (replica == ReplicaId([2; 16])).then_some(Access::Write));
    for (replica, nonce) in [(2, 22), (3, 33)] {
        rig.wires[wire].queues[0].clear();
        let local = session::Local {
            replica: ReplicaId([replica; 16]),
            timeline: antiphon::op::Timeline::new(replica.into()),
            previous: None,
            nonce,
            token: None,
        };
        let config = session::Config { transport: datagram, ..session::Config::default() };
        let mut peer = antiphon::Session::new(rig.now, config, local);
        let Some(session::Output::Transmit(hello)) = peer.poll() else { panic!("sessions begin with Hello") };
        assert!(Tag::NONE.unseal(&hello).is_some());
        rig.feed(wire, hello);
    }
    assert_eq!(asked.borrow().len(), 1, "nobody asked for the second: its session is to begin anew");
    assert_eq!(rig.endings(host), [Code::RESTARTED]);
}

#[test]
fn a_document_is_not_rebuilt_from_an_end_that_only_reads_it() {
    // Before: the app is told why not, and nothing has happened.
    let mut rig = Rig::new(62);
    let [this, reader] =
        [Config::default(), Config { documents: Admission::Closed, ..Config::default() }].map(|config| rig.add(config));
    let only_reads = || Options { access: Access::Read, ..Options::default() };
    rig.open(this, &doc());
    rig.append(this, &doc(), numbered(0..3, 20));
    let wire = rig.join(this, reader, Transport::Reliable);
    let (link, reset) = (LinkId(wire as u64), Input::Reset { document: doc(), link: LinkId(wire as u64) });
    rig.open_with(reader, &doc(), only_reads());
    rig.run_for(SECOND);
    assert!(rig.same(this, reader, &doc()));
    assert_eq!(rig.try_input(this, reset.clone()), Err(Misuse::NothingToTake(doc(), link)));
    rig.run_for(SECOND);
    assert_eq!(rig.tail(this, &doc()), 3);

    // After: both apps are told, instead of waiting for ever.
    rig.input(reader, Input::Close { document: doc() });
    rig.run_for(SECOND);
    rig.input(this, reset);
    rig.open_with(reader, &doc(), only_reads());
    rig.run_for(SECOND);
    for (end, teller) in [(this, By::Us), (reader, By::Peer)] {
        let told = |event: &Event| matches!(event, Event::Closed { code: Code::FORBIDDEN, by, .. } if *by == teller);
        assert_eq!(rig.ends[end].events.iter().filter(|event| told(event)).count(), 1);
    }
    assert!(rig.endings(this).is_empty(), "which is no reason to end the session");
}

#[test]
fn who_only_reads_and_holds_more_is_in_step_too() {
    let mut rig = Rig::new(63);
    let [this, reader] = [(); 2].map(|()| rig.add(Config::default()));
    rig.open(reader, &doc());
    rig.append(reader, &doc(), numbered(0..2, 20));
    rig.settle();
    rig.input(reader, Input::Close { document: doc() });
    rig.open_with(reader, &doc(), Options { access: Access::Read, ..Options::default() });
    rig.open(this, &doc());
    rig.append(this, &doc(), numbered(10..13, 20));
    rig.join(this, reader, Transport::Reliable);
    rig.run_for(SECOND);
    assert_eq!((rig.tail(this, &doc()), rig.tail(reader, &doc())), (3, 5));
    for end in [this, reader] {
        let in_step = rig.ends[end].events.iter().filter(|event| matches!(event, Event::InStep { .. }));
        assert_eq!(in_step.count(), 1);
    }
}
