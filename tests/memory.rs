//! What idle sessions and idle documents cost: bytes on the heap, counted when what is measured is dropped.

mod common;

use antiphon::op::DocumentId;
use antiphon::replica::Config;
use antiphon::session::Transport;
use common::rig::*;
use common::*;

const COUNT: usize = 1000;
const SESSION_MAX: u64 = 4 << 10;
const DOCUMENT_MAX: u64 = 1 << 10;
/// What a document may weigh more for each session that has it open.
const OPEN_MAX: u64 = 3 << 9;

/// Bytes that dropping something frees.
fn weight<T>(thing: T) -> u64 {
    let freed = allocation_counter::measure(|| drop(thing)).bytes_current;
    u64::try_from(-freed).expect("dropping frees")
}

/// What the first replica of a rig weighs, once everything else is gone.
fn weight_of_first(mut rig: Rig) -> u64 {
    rig.run_for(SECOND * 100);
    let first = rig.ends.swap_remove(0);
    drop(rig);
    weight(first.replica)
}

fn numbered_documents(count: usize) -> Vec<DocumentId> {
    (0..count).map(|number| document(&format!("document-{number:04}"))).collect()
}

/// A replica with so many documents and so many sessions that have them all open, after `ops` ops in each.
fn replica_with(documents: usize, sessions: usize, ops: u64, transport: Transport) -> Rig {
    let documents = numbered_documents(documents);
    let mut rig = Rig::new(43);
    let hub = rig.add(Config::default());
    documents.iter().for_each(|document| rig.open(hub, document));
    rig.settle();
    for _ in 0..sessions {
        let reader = rig.add(Config::default());
        documents.iter().for_each(|document| rig.open(reader, document));
        rig.join(hub, reader, transport);
    }
    rig.run_for(SECOND);
    for document in &documents {
        rig.append(hub, document, numbered(0..ops, 100));
        for end in 1..rig.ends.len().min(2) {
            rig.append(end, document, numbered(0..ops.min(2), 100));
        }
    }
    rig.run_for(SECOND * 10);
    for end in 1..rig.ends.len() {
        assert!(documents.iter().all(|document| rig.same(0, end, document)), "they are in step");
    }
    rig
}

#[test]
fn an_idle_session_weighs_at_most_4_kib() {
    for transport in [Transport::Reliable, Transport::Datagram { mtu: 1200 }] {
        let with = |sessions| weight_of_first(replica_with(1, sessions, 1, transport));
        let (none, many) = (with(0), with(COUNT));
        let each = (many - none) / COUNT as u64;
        println!("{transport:?}: an idle session with one document weighs {each} bytes");
        assert!(each <= SESSION_MAX);
    }
}

#[test]
fn an_idle_document_weighs_at_most_1_kib() {
    // Whatever went through it: when it rests, its entries are on the disk alone.
    for ops in [0, 1, 50] {
        let each = document_weight(0, ops);
        println!("an idle document, after {ops} ops, weighs {each} bytes");
        assert!(each <= DOCUMENT_MAX);
    }
}

/// Each session that has a document open keeps its own observations of it.
#[test]
fn each_session_adds_little_to_a_document() {
    for ops in [0, 1, 50] {
        let [none, one, two] = [0, 1, 2].map(|sessions| document_weight(sessions, ops));
        println!("after {ops} ops, a document open on 0, 1, 2 sessions weighs {none}, {one}, {two} bytes");
        assert!(one <= none + OPEN_MAX && two <= one + OPEN_MAX);
    }
}

fn document_weight(sessions: usize, ops: u64) -> u64 {
    let with = |documents| weight_of_first(replica_with(documents, sessions, ops, Transport::Reliable));
    (with(1 + COUNT) - with(1)) / COUNT as u64
}
