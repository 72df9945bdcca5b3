//! Figures that do not depend on the machine: bytes on the wire, bytes in memory, virtual time.
//!
//! `cargo bench --bench figures` prints them. Every run prints the same, but for the memory, which the allocator rounds.

use std::time::Duration;

use antiphon::op::DocumentId;
use antiphon::replica::{Config, Event, Options, Replica};
use antiphon::rng::{Ratio, Rng};
use antiphon::session::{self, Local, Session, Transport};
use antiphon::storage::{Continuity, Identity};
use antiphon::store::{ClientId, Store};
use antiphon::wire::{Content, Message};
use antiphon::{Instant, Machine};
use antiphon_sim::World;
use antiphon_sim::link::Faults;
use antiphon_sim::world::{Medium, NodeId, PathId};

fn main() {
    println!("{:<58} {:>12}", "figure", "value");
    bytes_around_ops();
    opens_in_step();
    cell_changed_while_apart();
    idle_memory();
    healing();
}

fn row(figure: &str, value: impl std::fmt::Display) {
    println!("{figure:<58} {value:>12}");
}

fn document(name: &str) -> DocumentId {
    name.parse().expect("a name")
}

fn pair(medium: Medium, documents: &[DocumentId]) -> (World, [NodeId; 2], PathId) {
    let mut world = World::new(1);
    let nodes = [world.add(Config::default()), world.add(Config::default())];
    for node in nodes {
        documents.iter().for_each(|document| world.open(node, document, Options::default()));
    }
    let path = world.join(nodes[0], nodes[1], medium);
    world.run_for(Duration::from_secs(1));
    (world, nodes, path)
}

/// What a frame has besides the bodies in it, and how many those are.
fn overhead(frame: &bytes::Bytes) -> Option<(usize, usize)> {
    match Message::decode(frame).ok()? {
        Message::Changes(changes) => Some(match changes.content {
            Content::Live { body, .. } => (frame.len() - body.wire_len(), 1),
            Content::Bulk { bodies, .. } => {
                (frame.len() - bodies.iter().map(antiphon::op::Body::wire_len).sum::<usize>(), bodies.len())
            }
            Content::Part { piece, .. } => (frame.len() - piece.len(), 1),
        }),
        _ => None,
    }
}

fn bytes_around_ops() {
    let documents: Vec<_> = (0..150).map(|number| document(&format!("document {number}"))).collect();
    let (mut world, nodes, _) = pair(Medium::reliable(Duration::from_millis(1)), &documents);
    let last = &documents[149];
    world.record();
    for _ in 0..20_000 {
        world.append(nodes[0], last, &b"twenty bytes of body"[..]);
    }
    let frames = world.transcript().iter().filter_map(|sent| overhead(&sent.frame));
    let (bytes, ops) = frames.fold((0, 0), |sum, frame| (sum.0 + frame.0, sum.1 + frame.1));
    row("bytes around a live op, 150 documents, 20,000 ops in", format!("{:.2}", bytes as f64 / ops as f64));

    let reader = world.add(Config::default());
    world.open(reader, last, Options::default());
    let before = world.transcript().len();
    world.join(nodes[0], reader, Medium::reliable(Duration::from_millis(1)));
    world.run_for(Duration::from_secs(10));
    let frames = world.transcript()[before..].iter().filter_map(|sent| overhead(&sent.frame));
    let (bytes, ops) = frames.fold((0, 0), |sum, frame| (sum.0 + frame.0, sum.1 + frame.1));
    row("bytes around an op in bulk, 20,000 of one author", format!("{:.2}", bytes as f64 / ops as f64));
}

fn opens_in_step() {
    let name = "doc";
    let (mut world, nodes, path) = pair(Medium::reliable(Duration::from_millis(1)), &[document(name)]);
    for _ in 0..10_000 {
        world.append(nodes[0], &document(name), &b"x"[..]);
    }
    world.run_for(Duration::from_secs(1));
    world.cut(path, true);
    world.run_for(Duration::from_secs(1));
    world.record();
    world.mend(path);
    world.run_for(Duration::from_secs(1));
    let opens = world.transcript().iter().filter(|sent| matches!(Message::decode(&sent.frame), Ok(Message::Open(_))));
    let largest = opens.map(|sent| sent.frame.len() - name.len()).max().unwrap_or_default();
    row("bytes of Open in step, name excluded", largest);
    let total: usize = world.transcript().iter().map(|sent| sent.frame.len()).sum();
    row("bytes of a whole reconnect in step, both directions", total);
}

/// A store of a million rows, and one cell that is set at one end while the two are apart.
fn cell_changed_while_apart() {
    const WALL: u64 = 1_700_000_000_000;
    let name = document("table");
    let (mut world, nodes, path) = pair(Medium::reliable(Duration::from_millis(1)), std::slice::from_ref(&name));
    let mut store = Store::new(ClientId::new(1));
    for first in (0..1_000_000).step_by(1000) {
        let mut transaction = store.begin(WALL).expect("the time is right");
        for row in first..first + 1000 {
            transaction.set_cell("table", &format!("row {row}"), "cell", i64::from(row)).expect("it fits");
        }
        world.append(nodes[0], &name, transaction.commit().expect("it fits").body.expect("new rows"));
        world.run_for(Duration::from_millis(100));
    }
    world.cut(path, true);
    world.run_for(Duration::from_secs(1));
    let mut transaction = store.begin(WALL + 1).expect("the time is right");
    transaction.set_cell("table", "row 765432", "cell", -1).expect("it fits");
    world.append(nodes[0], &name, transaction.commit().expect("it fits").body.expect("it was another"));
    world.run_for(Duration::from_secs(1));
    world.record();
    world.mend(path);
    world.run_for(Duration::from_secs(1));
    let tails = nodes.map(|node| world.replica(node).and_then(|replica| Some(replica.document(&name)?.1)));
    assert_eq!(tails, [Some(1001); 2], "it arrives");
    let frames: Vec<_> = world.transcript().iter().map(|sent| &sent.frame).collect();
    let is = |frame: &bytes::Bytes, kind: fn(&Message) -> bool| Message::decode(frame).is_ok_and(|it| kind(&it));
    let greets = |frame: &bytes::Bytes| is(frame, |message| matches!(message, Message::Hello(_) | Message::Welcome(_)));
    let op = frames.iter().position(|frame| is(frame, |message| matches!(message, Message::Changes(_))));
    let (before, after) = frames.split_at(op.map_or(0, |op| op + 1));
    let bytes =
        |frames: &[&bytes::Bytes]| frames.iter().filter(|frame| !greets(frame)).map(|it| it.len()).sum::<usize>();
    row("one cell of 1,000,000 rows, found and sent: bytes", bytes(before));
    row("its acknowledgement, and both know they are in step: bytes", bytes(after));
}

fn idle_memory() {
    const COUNT: u64 = 1000;
    let local = |nonce| Local {
        replica: antiphon::op::ReplicaId(core::array::from_fn(|index| (nonce >> (8 * (index % 8))) as u8)),
        timeline: antiphon::op::Timeline::new(7),
        previous: None,
        nonce,
        token: None,
    };
    let config = || session::Config { transport: Transport::Reliable, ..session::Config::default() };
    let mut sessions = Vec::with_capacity(COUNT as usize);
    let mut peers: Vec<_> = (0..COUNT).map(|n| Session::new(Instant::ZERO, config(), local(1000 + n))).collect();
    let used = allocation_counter::measure(|| {
        sessions.extend((0..COUNT).map(|n| Session::new(Instant::ZERO, config(), local(5000 + n))));
        sessions.iter_mut().zip(&mut peers).for_each(|(session, peer)| shake_hands(session, peer));
    });
    assert!(sessions.iter().all(Session::is_live));
    let bytes = used.bytes_current / COUNT as i64 + size_of::<Session>() as i64;
    row("bytes of memory of an idle session", bytes);

    let mut entropy = Rng::new(1);
    let identity = Identity::reopen(None, Continuity::Proven, &mut entropy);
    let mut replica = Replica::new(Config::default(), identity, [1; 32]);
    let mut storage = antiphon_memory::Disk::new().open().expect("a new disk");
    let used = allocation_counter::measure(|| {
        for n in 0..COUNT {
            let open =
                antiphon::replica::Input::Open { document: document(&format!("{n}")), options: Options::default() };
            replica.handle(Instant::ZERO, open).expect("a legal input");
            while let Some(output) = replica.poll() {
                if let antiphon::replica::Output::Storage { ticket, request } = output {
                    use antiphon::storage::Storage;
                    let reply = storage.execute(&request).map_err(|error| error.to_string());
                    let input = antiphon::replica::Input::Storage { ticket, reply };
                    replica.handle(Instant::ZERO, input).expect("an answer");
                }
            }
        }
    });
    row("bytes of memory of an idle document", used.bytes_current / COUNT as i64);
}

fn shake_hands(session: &mut Session, peer: &mut Session) {
    let ends = [session, peer];
    for _ in 0..4 {
        for side in [0, 1] {
            while let Some(output) = ends[side].poll() {
                let (to, input) = match output {
                    session::Output::Transmit(frame) => (1 - side, session::Input::Received(frame)),
                    session::Output::Authenticate { .. } => (side, session::Input::Authenticated(Ok(()))),
                    _ => continue,
                };
                ends[to].handle(Instant::ZERO, input).expect("a legal input");
            }
        }
    }
}

/// A burst of 100 ops, one a millisecond, over 20 ms of latency, with and without one lost frame.
fn healing() {
    let faults = Faults { latency: Duration::from_millis(20), ..Faults::NONE };
    let run = |lost: Option<u32>| {
        let (mut world, nodes, path) = pair(Medium::datagram(faults), &[document("doc")]);
        let start = world.now();
        let before = world.counters(path).map(|counters| counters.bytes).iter().sum::<u64>();
        for op in 0..100 {
            if lost == Some(op) {
                world.set_faults(path, Faults { loss: Ratio::ALWAYS, ..faults });
            }
            world.append(nodes[0], &document("doc"), vec![op as u8; 100]);
            world.set_faults(path, faults);
            world.run_for(Duration::from_millis(1));
        }
        let done = |world: &World| {
            world
                .replica(nodes[1])
                .and_then(|replica| replica.document(&document("doc")))
                .is_some_and(|(_, tail)| tail == 100)
        };
        assert!(world.run_until(Duration::from_secs(5), done), "the burst arrives");
        let arrived = world.now().since(start);
        world.run_for(Duration::from_secs(1));
        let reconnects = world.events(nodes[0]).filter(|event| matches!(event, Event::Disconnected { .. })).count();
        assert_eq!(reconnects, 0, "without a reconnect");
        (arrived, world.counters(path).map(|counters| counters.bytes).iter().sum::<u64>() - before)
    };
    let (ideal_time, ideal_bytes) = run(None);
    for (name, lost) in [("first", 0), ("middle", 50), ("last", 99)] {
        let (time, bytes) = run(Some(lost));
        let (time, bytes) = (time.saturating_sub(ideal_time), bytes as i64 - ideal_bytes as i64);
        row(&format!("healing the {name} frame of 100 at 20 ms: extra time"), format!("{time:?}"));
        row(&format!("healing the {name} frame of 100 at 20 ms: extra bytes"), bytes);
    }
}
