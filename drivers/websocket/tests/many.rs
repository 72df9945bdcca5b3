//! Many connections: idle ones, a stalled one among others, and all of them at a shutdown.

mod common;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use antiphon::codes::Code;
use antiphon::replica::Event;
use antiphon::session::By;
use antiphon::storage::Storage;
use antiphon_memory::MemoryStorage;
use antiphon_node::{Config, LinkOptions, Node, Notice};
use antiphon_websocket::{Client, Server, ServerConfig};
use async_io::Async;
use common::*;
use futures_lite::future::{or, pending};
use futures_lite::{AsyncReadExt, AsyncWriteExt};

/// A node whose driver runs with those of others.
fn light(executor: &async_executor::Executor<'static>) -> Node {
    let opened = wait(Node::open(MemoryStorage::new(), antiphon::storage::Continuity::Proven, Config::default()));
    let (node, driver) = opened.expect("a storage in memory opens");
    executor.spawn(driver).detach();
    node
}

#[test]
fn some_hundred_idle_connections_are_served_beside_a_busy_one() {
    const IDLE: usize = 300;
    let counted = Server::new(ServerConfig::default());
    let (server, drivers) = (serve(&counted), executor(1));
    let nodes: Vec<_> = (0..IDLE).map(|_| light(&drivers)).collect();
    let links: Vec<_> = nodes.iter().map(|node| connect(node, &server.url())).collect();
    links.iter().for_each(|link| wait(link.live()).expect("it connects"));
    assert_eq!(counted.connections(), IDLE);

    let writer = memory();
    let document = open(&writer.node);
    let link = connect(&writer.node, &server.url());
    for _ in 0..50 {
        append(&writer.node, ["busy"]);
        wait(link.acknowledged(&document)).expect("it reaches the server");
    }
    open(&nodes[IDLE / 2]);
    let (_, tail) = wait(links[IDLE / 2].in_step(&document)).expect("it wakes up");
    assert_eq!(tail, 50);
    assert_eq!(counted.connections(), IDLE + 1, "nobody was lost");
    writer.stop(None);
    server.stop(Some(Duration::from_secs(60)));
}

/// Passes on what a client and the server say, and from some time on nothing of what the server says.
async fn stalling_proxy(listener: Async<TcpListener>, to: SocketAddr, stalls: Arc<AtomicBool>) -> io::Result<()> {
    let (client, _) = listener.accept().await?;
    let server = Async::<TcpStream>::connect(to).await?;
    let (mut from, mut to) = (&server, &client);
    let up = futures_lite::io::copy(&client, &server);
    let down = async {
        let mut buffer = [0; 4096];
        while !stalls.load(Ordering::SeqCst) {
            let count = from.read(&mut buffer).await?;
            to.write_all(&buffer[..count]).await?;
        }
        pending().await
    };
    or(up, down).await.map(|_| ())
}

#[test]
fn a_reader_that_stalls_keeps_nobody_waiting_and_is_cut() {
    let mut config = Config::default();
    config.replica.session.ping_after = Duration::from_secs(1);
    config.replica.session.silence_max = Duration::from_secs(5);
    let running = Running::start(MemoryStorage::new(), config);
    let server = serve_with(&Server::new(ServerConfig::default()), running, (Ipv4Addr::LOCALHOST, 0).into());
    let drivers = executor(1);
    let readers: Vec<_> = (0..5).map(|_| light(&drivers)).collect();
    let links: Vec<_> = readers.iter().map(|node| connect(node, &server.url())).collect();
    readers.iter().for_each(|node| _ = open(node));

    let listener = Async::<TcpListener>::bind((Ipv4Addr::LOCALHOST, 0)).expect("there is a port");
    let url = format!("ws://{}/", listener.get_ref().local_addr().expect("it is bound"));
    let stalls = Arc::new(AtomicBool::new(false));
    drivers.spawn(stalling_proxy(listener, server.address, stalls.clone())).detach();
    let mut events = server.running.node.subscribe();
    let stalled = light(&drivers);
    open(&stalled);
    wait(connect(&stalled, &url).in_step(&document())).expect("at first it reads");
    let id = stalled.inspect(antiphon::Replica::id);
    let session = loop {
        match wait(events.next()) {
            Some(Notice::Event(Event::Connected { link, replica, .. })) if replica == id => break link,
            _ => {}
        }
    };
    stalls.store(true, Ordering::SeqCst);

    let writer = memory();
    let document = open(&writer.node);
    let link = connect(&writer.node, &server.url());
    let (mut written, mut sent) = (0, 0);
    let ending = loop {
        writer.node.try_append(&document, vec![vec![7; 50_000].into()]).expect("it is open");
        written += 1;
        wait(link.acknowledged(&document)).expect("the server writes it");
        for (reader, link) in readers.iter().zip(&links) {
            while reader.document(&document).is_none_or(|(_, tail)| tail < written) {
                wait(link.in_step(&document)).expect("the others read on");
            }
        }
        let stats = server.running.node.inspect(|replica| replica.session(session).map(|session| session.stats()));
        sent = stats.map_or(sent, |stats| stats.bytes_sent);
        let ended = std::iter::from_fn(|| events.try_next()).find_map(|notice| match notice {
            Notice::Event(Event::Disconnected { link, ending }) if link == session => Some(ending),
            _ => None,
        });
        if let Some(ending) = ended {
            break ending;
        }
    };
    assert_eq!(ending.map(|ending| ending.code), Some(Code::SILENT));
    assert!(sent < 400_000, "{sent} bytes were made for who reads none, of {written} times 50,000");
    server.stop(Some(PATIENCE));
    writer.stop(None);
}

#[test]
fn a_shutdown_tells_everybody_and_loses_nothing() {
    let (server, drivers) = (plain(), executor(1));
    let document = document();
    let nodes: Vec<_> = (0..20).map(|_| light(&drivers)).collect();
    let links: Vec<_> = nodes
        .iter()
        .map(|node| {
            open(node);
            connect(node, &server.url())
        })
        .collect();
    let mut events: Vec<_> = nodes.iter().map(Node::subscribe).collect();
    links.iter().for_each(|link| wait(link.in_step(&document)).map(|_| ()).expect("they come in step"));
    // Everybody writes while it goes down.
    for node in &nodes {
        (0..100).for_each(|_| append(node, ["an op"]));
    }
    let storage = server.stop(Some(Duration::from_millis(12_345)));
    assert_eq!(storage.disk().unsynced(), 0);
    let mut storage = storage;
    let stored = storage.document(&document).expect("it can be read");
    for (node, events) in nodes.iter().zip(&mut events) {
        let mut acknowledged = 0;
        let ending = loop {
            match wait(events.next()) {
                Some(Notice::Event(Event::Acknowledged { position, .. })) => acknowledged = position,
                Some(Notice::Event(Event::Disconnected { ending, .. })) => break ending.expect("it was told"),
                Some(_) => {}
                None => panic!("the node runs"),
            }
        };
        assert_eq!((ending.code, ending.by, ending.retry_after), (Code::SHUTDOWN, By::Peer, Some(12_345)));
        let mut mine = Vec::new();
        while (mine.len() as u64) < acknowledged {
            mine.extend(wait(node.read(&document, mine.len() as u64, 1 << 20)).expect("it can be read"));
        }
        let lacking = mine[..acknowledged as usize].iter().filter(|entry| !stored.heads.covers(entry.op.id)).count();
        assert_eq!(lacking, 0, "what was acknowledged is there");
    }
    let late = Client::new("ws://127.0.0.1:9/").expect("a good address");
    assert!(nodes[0].connect(late, LinkOptions::default(), eager()).is_ok(), "the others go on");
}
