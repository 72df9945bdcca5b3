//! What waits for a link is bounded, and one that stalls slows nobody else.

mod common;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use antiphon::replica::{Event, LinkId};
use antiphon::wire::{Message, Ping};
use antiphon_memory::MemoryStorage;
use antiphon_node::{Config, FrameSender, Link, LinkOptions, Node, Notice};
use async_channel::{Receiver, unbounded};
use async_io::Timer;
use bytes::Bytes;
use common::*;
use futures_lite::future::{or, pending};

const BODY: usize = 10_000;

/// Hands frames on until it is told to stall, counts those it was offered, and is closed when it is dropped.
struct Stalling {
    out: Out,
    stalls: Arc<AtomicU64>,
    _closed: async_channel::Sender<()>,
}

impl FrameSender for Stalling {
    async fn send(&mut self, frame: Bytes) -> io::Result<()> {
        if self.stalls.load(Ordering::SeqCst) > 0 {
            self.stalls.fetch_add(1, Ordering::SeqCst);
            return pending().await;
        }
        self.out.send(frame).await
    }
}

/// A reader of `node`'s documents to whom nothing gets through from when the number is not 0 any more.
fn stalling_reader(node: &Node) -> (Running<MemoryStorage>, LinkId, Arc<AtomicU64>, Receiver<()>) {
    let reader = memory();
    let document = open(&reader.node);
    let mut events = reader.node.subscribe();
    let ((out, from_reader), (to_node, from_node)) = pair();
    let stalls = Arc::new(AtomicU64::new(0));
    let (closed, is_closed) = unbounded();
    reader.node.accept((to_node, from_node), LinkOptions::default()).expect("the node runs");
    let stalling = Stalling { out, stalls: stalls.clone(), _closed: closed };
    let link = node.accept((stalling, from_reader), LinkOptions::default()).expect("the node runs");
    while !matches!(wait(events.next()), Some(Notice::Event(Event::InStep { .. }))) {}
    assert_eq!(reader.node.document(&document).map(|(_, tail)| tail), Some(0));
    (reader, link, stalls, is_closed)
}

/// Appends `count` ops, each when everybody who listens has the one before.
fn write_to(writer: &Node, readers: &[Link], count: usize) {
    for _ in 0..count {
        writer.try_append(&document(), vec![vec![7; BODY].into()]).expect("it is open");
        readers.iter().for_each(|reader| wait(reader.acknowledged(&document())).expect("they read"));
    }
}

#[test]
fn a_stalled_reader_neither_grows_nor_slows_others() {
    // Credit would bound it too: it is wider here than what is written.
    let mut config = Config { outbox_bytes: 200_000, close_deadline: Duration::from_millis(50), ..Config::default() };
    config.replica.session.limits.window = 64 << 20;
    config.replica.session.limits.credit = 256 << 20;
    let writer = Running::start(MemoryStorage::new(), config.clone());
    open(&writer.node);
    let (stalled, link, stalls, _closed) = stalling_reader(&writer.node);
    let readers = [(); 3].map(|()| Running::start(MemoryStorage::new(), config.clone()));
    let links = readers.each_ref().map(|reader| {
        open(&reader.node);
        connect(&writer.node, &reader.node)
    });
    stalls.store(1, Ordering::SeqCst);
    write_to(&writer.node, &links, 200);
    let sent = writer.node.inspect(|replica| replica.session(link).map(|session| session.stats().bytes_sent));
    let sent = sent.expect("it is still there");
    assert!(sent <= 210_000, "{sent} bytes were made for who takes none");
    assert_eq!(stalls.load(Ordering::SeqCst), 2, "one frame was offered, and that is all");
    drop(stalled);
    stop(readers.into_iter().chain([writer]));
}

#[test]
fn a_reader_that_goes_on_gets_everything() {
    let config = Config { outbox_bytes: 1, ..Config::default() };
    let (writer, reader) = (Running::start(MemoryStorage::new(), config), memory());
    let document = open(&writer.node);
    open(&reader.node);
    for _ in 0..100 {
        writer.node.try_append(&document, vec![vec![7; BODY].into()]).expect("it is open");
    }
    let link = connect(&writer.node, &reader.node);
    wait(link.acknowledged(&document)).expect("it is told again and again how much room there is");
    stop([writer, reader]);
}

#[test]
fn a_transport_that_takes_nothing_is_cut() {
    let config = Config { write_deadline: Duration::from_millis(50), ..Config::default() };
    let writer = Running::start(MemoryStorage::new(), config);
    open(&writer.node);
    let (stalled, link, stalls, closed) = stalling_reader(&writer.node);
    let mut events = writer.node.subscribe();
    stalls.store(1, Ordering::SeqCst);
    append(&writer.node, "for nobody");
    let cut =
        |notice| matches!(notice, Notice::Event(Event::Disconnected { link: gone, ending: None }) if gone == link);
    while !cut(wait(events.next()).expect("the node runs")) {}
    assert!(wait(closed.recv()).is_err(), "the transport is dropped");
    stop([stalled, writer]);
}

#[test]
fn who_asks_and_never_listens_is_not_answered_without_end() {
    let config = Config { outbox_bytes_max: 1, close_deadline: Duration::from_millis(50), ..Config::default() };
    let node = Running::start(MemoryStorage::new(), config);
    // A whole handshake, by a node, whose frames the test then forges.
    let peer = memory();
    let ((to_peer, from_peer), (to_node, from_node)) = pair();
    let stalls = Arc::new(AtomicU64::new(0));
    let (closed, _is_closed) = unbounded();
    let stalling = Stalling { out: to_peer, stalls: stalls.clone(), _closed: closed };
    let forge = to_node.0.clone();
    let link = node.node.accept((stalling, from_peer), LinkOptions::default()).expect("the node runs");
    peer.node.accept((to_node, from_node), LinkOptions::default()).expect("the node runs");
    while node.node.inspect(|replica| replica.session(link).is_none_or(|session| !session.is_live())) {
        std::thread::yield_now();
    }
    stalls.store(1, Ordering::SeqCst);
    let ping = Message::Ping(Ping { token: 1, blocked: false }).encode();
    // The channel holds 16; beyond, a frame goes in only when one is read.
    let mut asked = 0;
    while wait(or(async { forge.send(ping.clone()).await.is_ok() }, async {
        Timer::after(Duration::from_millis(500)).await;
        false
    })) {
        asked += 1;
        assert!(asked < 1_000_000, "it is answered without end");
    }
    drop(forge);
    let queued = node.node.inspect(|replica| replica.session(link).map(|session| session.stats().bytes_sent));
    assert!(queued.expect("it is still there") < 1 << 20);
}

#[test]
fn a_shutdown_does_not_wait_for_who_takes_nothing() {
    let config =
        Config { write_deadline: PATIENCE * 2, close_deadline: Duration::from_millis(50), ..Config::default() };
    let writer = Running::start(MemoryStorage::new(), config);
    open(&writer.node);
    let (stalled, _, stalls, _closed) = stalling_reader(&writer.node);
    stalls.store(1, Ordering::SeqCst);
    append(&writer.node, "for nobody");
    while stalls.load(Ordering::SeqCst) < 2 {
        std::thread::yield_now();
    }
    stop([writer, stalled]);
}
