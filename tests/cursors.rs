//! Cursors: how far a peer's log is held is stored, whichever way a session ends, and with no write of its own before.

mod common;

use antiphon::codes::Code;
use antiphon::replica::{Config, Event, Input, LinkId, Options};
use antiphon::session::Transport;
use antiphon::storage::{Request, Transaction};
use antiphon::wire::{Access, Durability};
use antiphon_sim::world::{Medium, World};
use common::rig::*;
use common::*;

#[derive(Clone, Copy, Debug)]
enum End {
    Here,
    There,
    LinkLost,
}

#[test]
fn what_only_skips_moved_is_stored_when_the_session_ends() {
    for end in [End::Here, End::There, End::LinkLost] {
        let mut rig = Rig::new(51);
        let (reader, writer) = (rig.add(Config::default()), rig.add(Config::default()));
        let wire = rig.join(reader, writer, Transport::Reliable);
        rig.open(reader, &doc());
        rig.open(writer, &doc());
        rig.run_for(SECOND);
        // The other's log moves by what came from here: told as a skip, which alone is not worth a write.
        let writer_id = rig.identity(reader).replica;
        rig.append(reader, &doc(), numbered(0..3, 20));
        rig.run_for(SECOND);
        assert_eq!(rig.tail(writer, &doc()), 3);
        let stored = |rig: &Rig| rig.cursor(reader, &doc(), rig.identity(writer).replica).map(|cursor| cursor.position);
        assert_eq!(stored(&rig), None, "{end:?}");
        assert_eq!(rig.cursor(writer, &doc(), writer_id).map(|cursor| cursor.position), Some(3), "{end:?}");

        let link = LinkId(wire as u64);
        let goodbye = Input::Disconnect { link, code: Code::SHUTDOWN, reason: String::new(), retry_after: None };
        match end {
            End::Here => rig.input(reader, goodbye),
            End::There => rig.input(writer, goodbye),
            End::LinkLost => rig.input(reader, Input::Disconnected { link }),
        }
        rig.run_for(SECOND);
        assert_eq!(stored(&rig), Some(3), "{end:?}");
    }
}

#[test]
fn a_session_that_ends_before_its_ops_are_written_takes_no_cursor_back() {
    let mut rig = Rig::new(53);
    let (reader, writer) = (rig.add(Config::default()), rig.add(Config::default()));
    let wire = rig.join(reader, writer, Transport::Reliable);
    rig.open(reader, &doc());
    rig.open(writer, &doc());
    rig.run_for(SECOND);
    rig.ends[reader].stalled.insert(doc());
    rig.append(writer, &doc(), numbered(0..3, 20));
    rig.run_for(SECOND);
    rig.input(reader, Input::Disconnected { link: LinkId(wire as u64) });
    rig.ends[reader].stalled.clear();
    rig.run_for(SECOND);
    assert_eq!(rig.tail(reader, &doc()), 3);
    let stored = rig.cursor(reader, &doc(), rig.identity(writer).replica);
    assert_eq!(stored.map(|cursor| cursor.position), Some(3), "what stands on the disk is what the disk holds");
}

#[test]
fn a_cursor_is_never_written_without_need() {
    let mut rig = Rig::new(52);
    let (reader, writer) = (rig.add(Config::default()), rig.add(Config::default()));
    rig.join(reader, writer, Transport::Reliable);
    rig.open(reader, &doc());
    rig.open(writer, &doc());
    rig.run_for(SECOND);
    let writes = std::rc::Rc::new(std::cell::Cell::new(0));
    let seen = writes.clone();
    rig.ends[reader].answers = Some(Box::new(move |request| {
        seen.set(seen.get() + usize::from(matches!(request, Request::Write(Transaction::Append(_)))));
        None
    }));
    for number in 0..10 {
        rig.append(reader, &doc(), numbered(number..number + 1, 20));
        rig.run_for(SECOND);
    }
    assert_eq!(writes.get(), 10, "ten appends, and nothing for the ten skips that they came back as");
}

/// What a replica does that promises so much.
fn promising(durability: Durability) -> Config {
    let mut config = Config::default();
    config.session.durability = durability;
    config
}

#[test]
fn peers_that_keep_nothing_leave_no_cursor_behind_unless_they_are_upstream() {
    let reliable = Medium::reliable(5 * MILLISECOND);
    for (durability, medium, expected) in [
        (Durability::Memory, reliable, None),
        (Durability::Memory, reliable.upstream(), Some(8)),
        (Durability::Commit, reliable, Some(8)),
    ] {
        let mut world = World::new(53);
        world.record();
        let (keeper, other) = (world.add(Config::default()), world.add(promising(durability)));
        let path = world.join(keeper, other, medium);
        for node in [keeper, other] {
            world.open(node, &doc(), Options::default());
        }
        let stored = |world: &World| cursor_on(world.disk(keeper), &doc(), world.id(other));
        let write = |world: &mut World, body: &'static str| {
            for (node, author) in [(keeper, "keeper"), (other, "other")] {
                (0..2).for_each(|number| world.append(node, &doc(), format!("{body} {author} {number}")));
            }
        };
        // With ops, by a skip at a session's end, and again when it comes back.
        write(&mut world, "live");
        converge(&mut world, &[keeper, other], &doc(), SECOND);
        world.run_for(SECOND); // also what went by is told
        world.cut(path, true);
        write(&mut world, "apart");
        world.run_for(SECOND);
        let since = world.transcript().len();
        world.mend(path);
        converge(&mut world, &[keeper, other], &doc(), SECOND);
        world.run_for(SECOND);
        world.cut(path, true);
        world.run_for(SECOND);
        assert_eq!(stored(&world).map(|cursor| cursor.position), expected, "{durability:?}, {medium:?}");
        // Without a cursor the heads told the same: nothing went twice.
        for node in [keeper, other] {
            assert_eq!(traffic(&world, since, node, path, medium).ops, 2, "{durability:?}, {medium:?}");
        }
        assert_eq!(cursor_on(world.disk(other), &doc(), world.id(keeper)).map(|cursor| cursor.position), Some(8));
    }
}

#[test]
fn a_peer_that_only_read_is_held_no_further_than_it_has_sent() {
    for transport in [Transport::Reliable, Transport::Datagram { mtu: 1200 }] {
        let mut rig = Rig::new(53);
        let (reader, other) = (rig.add(Config::default()), rig.add(Config::default()));
        let open = |rig: &mut Rig, access| rig.open_with(reader, &doc(), Options { access, ..Options::default() });
        open(&mut rig, Access::Write);
        rig.append(reader, &doc(), numbered(0..3, 20));
        rig.settle();
        rig.input(reader, Input::Close { document: doc() });
        open(&mut rig, Access::Read);
        rig.open(other, &doc());
        rig.append(other, &doc(), numbered(3..4, 20));
        let wire = rig.join(reader, other, transport);
        rig.run_for(SECOND);
        assert_eq!((rig.tail(reader, &doc()), rig.tail(other, &doc())), (4, 1));
        let told = |event: &Event| matches!(event, Event::Acknowledged { .. });
        assert!(!rig.ends[reader].events.iter().any(told), "nobody else has its ops");

        let link = LinkId(wire as u64);
        (0..2).for_each(|end| rig.input(end, Input::Disconnected { link }));
        rig.settle();
        assert_eq!(rig.cursor(other, &doc(), rig.identity(reader).replica), None);

        // Once it writes too, everything goes over, and nothing has to be opened again for it.
        rig.input(reader, Input::Close { document: doc() });
        open(&mut rig, Access::Write);
        let wire = rig.join(reader, other, transport);
        rig.wires[wire].trace = Some(Vec::new());
        rig.run_for(SECOND);
        assert_eq!(rig.tail(other, &doc()), 4);
        assert!(rig.ends[reader].events.iter().any(told));
        let closed = rig.wires[wire].trace.iter().flatten().any(|traced| match traced {
            Traced::Sent(_, frame) => unwrapped(frame, transport).name() == "Close",
            Traced::Delivered(..) => false,
        });
        assert!(!closed);
    }
}
