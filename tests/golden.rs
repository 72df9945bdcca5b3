//! What goes over the wire, byte for byte, in six small exchanges. `UPDATE_GOLDEN=1 cargo test --test golden` writes the
//! transcripts anew; a change in them is a change of the protocol, of its timing, or of who says what.

mod common;

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use antiphon::op::DocumentId;
use antiphon::replica::{Config, Event, Options};
use antiphon::session::Transport;
use antiphon::storage::Continuity;
use antiphon::wire::{Message, TRAILER_BYTES};
use antiphon_memory::Disk;
use antiphon_sim::World;
use antiphon_sim::world::{Medium, NodeId, Sent, Tamper};
use bytes::Bytes;
use common::*;

/// Compares with the transcript that is kept, or keeps this one.
fn check(name: &str, what: &str, world: &World, nodes: &[NodeId], medium: Medium) {
    let mut text = format!("# {what}\n# seconds, from, to, bytes, message\n");
    for sent in world.transcript() {
        let _ = writeln!(text, "{}", line(sent, nodes, medium.transport));
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name).with_extension("txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some_and(|update| update == "1") {
        return std::fs::write(&path, text).expect("the checkout can be written to");
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    for (number, (kept, now)) in kept.lines().zip(text.lines()).enumerate() {
        assert_eq!(kept, now, "{name}.txt differs in line {}; if it is to, set UPDATE_GOLDEN=1", number + 1);
    }
    assert_eq!(kept.lines().count(), text.lines().count(), "{name}.txt has other lines; see UPDATE_GOLDEN");
    assert_eq!(kept, text, "{name}.txt differs in its line ends");
}

fn line(sent: &Sent, nodes: &[NodeId], transport: Transport) -> String {
    let [from, to] = if sent.from == nodes[0] { ["a", "b"] } else { ["b", "a"] };
    let mut hex = String::new();
    sent.frame.iter().for_each(|byte| write!(hex, "{byte:02x}").expect("strings take all"));
    format!("{} {from} {to} {hex} {}", sent.at, said(&sent.frame, transport))
}

fn said(frame: &Bytes, transport: Transport) -> String {
    let trailer = if transport == Transport::Reliable { 0 } else { TRAILER_BYTES };
    let inner = frame.slice(..frame.len() - trailer);
    let message = Message::decode(&inner).expect("replicas send what can be decoded");
    assert_eq!(message.encode(), inner, "there is one encoding");
    match message {
        Message::Reliable(number, inner) => {
            let inner = Message::decode(&inner).expect("replicas send what can be decoded");
            format!("Reliable({number}) {inner:?}")
        }
        message => format!("{message:?}"),
    }
}

/// Two replicas with the document open, on empty disks or these, not connected. All that is random comes from one seed.
fn two(disks: [Disk; 2]) -> (World, Vec<NodeId>) {
    let mut world = World::new(2024);
    let add = |disk| world.add_on(disk, Config::default(), Continuity::Proven);
    let nodes: Vec<_> = disks.into_iter().map(add).collect();
    nodes.iter().for_each(|node| world.open(*node, &notes(), Options::default()));
    (world, nodes)
}

fn empty() -> [Disk; 2] {
    [Disk::new(), Disk::new()]
}

fn notes() -> DocumentId {
    document("notes")
}

const LATENCY: Duration = Duration::from_millis(20);

#[test]
fn first_data() {
    let medium = Medium::reliable(LATENCY);
    let (mut world, nodes) = two(empty());
    world.record();
    world.append(nodes[0], &notes(), "written before");
    world.join(nodes[0], nodes[1], medium);
    world.run_for(300 * MILLISECOND);
    world.append(nodes[1], &notes(), "written live");
    world.append(nodes[1], &notes(), "and one more");
    world.run_for(SECOND);
    assert!(same_on_disks(&world, &nodes, &notes()) && nodes.iter().all(|node| in_steps(&world, *node) > 0));
    check("first_data", "Handshake and first data on a reliable link.", &world, &nodes, medium);
}

#[test]
fn cursor() {
    let medium = Medium::reliable(LATENCY);
    let (mut world, nodes) = two(empty());
    let path = world.join(nodes[0], nodes[1], medium);
    world.run_for(SECOND);
    nodes.iter().for_each(|node| world.append(*node, &notes(), "held by both"));
    world.run_for(SECOND);
    world.cut(path, true);
    nodes.iter().for_each(|node| world.append(*node, &notes(), "written apart"));
    world.record();
    world.mend(path);
    world.run_for(SECOND);
    assert!(same_on_disks(&world, &nodes, &notes()));
    check("cursor", "Two that held the same were apart: each goes on at the other's cursor.", &world, &nodes, medium);
}

#[test]
fn heads() {
    let medium = Medium::reliable(LATENCY);
    let (mut world, nodes) =
        two([[3, 1], [2, 2]].map(|each| disk_with(&notes(), 2, |author| each[author as usize], 0)));
    world.record();
    world.join(nodes[0], nodes[1], medium);
    world.run_for(SECOND);
    assert!(same_on_disks(&world, &nodes, &notes()));
    check("heads", "Two that never met, each with ops that the other lacks: heads tell which.", &world, &nodes, medium);
}

#[test]
fn loss() {
    let medium = Medium::datagram(FAULTLESS);
    let (mut world, nodes) = two(empty());
    world.record();
    let path = world.join(nodes[0], nodes[1], medium);
    world.run_for(300 * MILLISECOND);
    world.append(nodes[0], &notes(), "0");
    world.run_for(100 * MILLISECOND);
    world.tamper(path, 1, Tamper::Drop);
    (1..6).for_each(|op| world.append(nodes[0], &notes(), op.to_string()));
    world.run_for(SECOND);
    assert!(same_on_disks(&world, &nodes, &notes()));
    let sent = traffic(&world, 0, nodes[1], path, medium);
    assert_eq!(sent.count("Rewind"), 1);
    check("loss", "Datagrams: op 2 of a burst is lost, missed, and asked for.", &world, &nodes, medium);
}

#[test]
fn fork() {
    let medium = Medium::reliable(LATENCY);
    // Bodies of another length: another history of the same author.
    let (mut world, nodes) = two([8, 9].map(|bytes| disk_with(&notes(), 1, |_| 2, bytes)));
    world.record();
    world.join(nodes[0], nodes[1], medium);
    world.run_for(SECOND);
    assert!(nodes.iter().all(|node| forks(&world, *node) > 0), "it is told at both ends");
    check("fork", "One author has two histories: both ends find it and say so.", &world, &nodes, medium);
}

#[test]
fn goodbye() {
    let medium = Medium::reliable(LATENCY);
    let (mut world, nodes) = two(empty());
    world.join(nodes[0], nodes[1], medium);
    world.run_for(SECOND);
    world.record();
    world.input(nodes[1], antiphon::replica::Input::Close { document: notes() });
    world.settle();
    world.run_for(SECOND);
    world.stop(nodes[1]);
    world.run_for(SECOND);
    let told = |event: &Event| matches!(event, Event::Disconnected { ending: Some(_), .. });
    assert_eq!(count(&world, nodes[0], told), 1);
    check("goodbye", "A document is closed, and then the session.", &world, &nodes, medium);
}
