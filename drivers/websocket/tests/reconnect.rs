//! The client comes back by itself, whatever happens to the server or to the bytes between.

mod common;

use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use antiphon::replica::Event;
use antiphon::rng::Rng;
use antiphon::storage::Storage;
use antiphon_node::{Config, LinkState, Notice};
use antiphon_websocket::{Client, Server, ServerConfig};
use async_io::Async;
use common::*;
use futures_lite::{AsyncReadExt, AsyncWriteExt};

#[test]
fn a_server_that_is_gone_and_back_is_found_again() {
    let server = plain();
    let (address, url) = (server.address, server.url());
    let writer = memory();
    let document = open(&writer.node);
    let link = connect(&writer.node, &url);
    append(&writer.node, ["before"]);
    wait(link.acknowledged(&document)).expect("it reaches the server");

    let disk = server.stop(None).disk().clone();
    append(&writer.node, ["while it is gone"]);
    while !matches!(link.state(), LinkState::Connecting { failures: 2.., .. }) {
        std::thread::yield_now();
    }
    let LinkState::Connecting { reason: Some(reason), .. } = link.state() else { panic!("it fails") };
    assert!(reason.contains(&format!("nothing listens at 127.0.0.1:{}", address.port())), "{reason}");

    let storage = disk.open().expect("the server has given it back");
    let server = serve_with(&Server::new(ServerConfig::default()), Running::start(storage, Config::default()), address);
    append(&writer.node, ["and back"]);
    wait(link.acknowledged(&document)).expect("it is found again");
    assert_eq!(server.stop(None).document(&document).expect("it can be read").tail, 3);
    writer.stop(None);
}

#[test]
fn who_is_sent_away_comes_back_when_it_was_told_to() {
    let server = plain();
    let writer = memory();
    let mut events = writer.node.subscribe();
    let link = connect(&writer.node, &server.url());
    wait(link.live()).expect("it connects");
    let hint = Duration::from_millis(400);
    let began = Instant::now();
    let address = server.address;
    server.stop(Some(hint));
    let ending = loop {
        if let Some(Notice::Event(Event::Disconnected { ending, .. })) = wait(events.next()) {
            break ending.expect("it was told goodbye");
        }
    };
    assert_eq!(ending.retry_after, Some(400));
    let server = serve_with(&Server::new(ServerConfig::default()), memory(), address);
    wait(link.live()).expect("it comes back");
    assert!(began.elapsed() >= hint);
    server.stop(None);
    writer.stop(None);
}

/// Passes bytes on both ways, and breaks each connection after so many; the last number counts for all that follow.
async fn proxy(listener: Async<TcpListener>, to: SocketAddr, mut cuts: impl Iterator<Item = usize>) {
    loop {
        let Ok((client, _)) = listener.accept().await else { return };
        let Ok(server) = Async::<TcpStream>::connect(to).await else { continue };
        let left = Cell::new(cuts.next().unwrap_or(usize::MAX));
        let up = pass(&client, &server, &left);
        let down = pass(&server, &client, &left);
        futures_lite::future::or(up, down).await;
    }
}

/// Passes bytes on until there are no more, or no more are to pass.
async fn pass(mut from: &Async<TcpStream>, mut to: &Async<TcpStream>, left: &Cell<usize>) {
    let mut buffer = [0; 1024];
    while left.get() > 0 {
        let Ok(count @ 1..) = from.read(&mut buffer).await else { return };
        let passes = count.min(left.get());
        left.set(left.get() - passes);
        if to.write_all(&buffer[..passes]).await.is_err() {
            return;
        }
    }
}

#[test]
fn a_proxy_that_cuts_after_some_bytes_loses_and_doubles_nothing() {
    const OPS: u64 = 300;
    let server = plain();
    let listener = Async::<TcpListener>::bind((Ipv4Addr::LOCALHOST, 0)).expect("there is a port");
    let url = format!("ws://{}/", listener.get_ref().local_addr().expect("it is bound"));
    let mut chance = Rng::new(7);
    // In the middle of the handshake, of Hello, of bulk and of live frames.
    let cuts: Vec<_> = (0..40).map(|_| chance.below(9_000) as usize).chain([1, 100, 250, 400, 600]).collect();
    let to = server.address;
    std::thread::spawn(move || async_io::block_on(proxy(listener, to, cuts.into_iter())));

    let [writer, reader] = [memory(), memory()];
    let document = open(&writer.node);
    open(&reader.node);
    let link = connect(&reader.node, &server.url());
    let through = connect(&writer.node, &url);
    for number in 0..OPS {
        let body = format!("a body that is somewhat longer, so that it is cut in the middle: {number}");
        writer.node.try_append(&document, vec![body.into()]).expect("it is open");
        if number % 10 == 9 {
            wait(through.acknowledged(&document)).expect("it comes through");
        }
    }
    wait(through.in_step(&document)).expect("it comes through");
    let (heads, tail) = wait(link.in_step(&document)).expect("it comes in step");
    assert_eq!(tail, OPS, "nothing is missing, and nothing is doubled");
    assert_eq!(writer.node.document(&document).map(|(held, _)| held.digest()), Some(heads.digest()));
    server.stop(None);
    [writer, reader].into_iter().for_each(|running| _ = running.stop(None));
}

#[test]
fn a_host_that_does_not_answer_is_given_up_in_time() {
    // It accepts (the system does), and says nothing.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("there is a port");
    let url = format!("ws://{}/", silent.local_addr().expect("it is bound"));
    let writer = memory();
    let client = Client::new(&url).expect("a good address").connect_timeout(Duration::from_millis(50));
    let link = connect_with(&writer.node, client);
    let reason = loop {
        if let LinkState::Connecting { reason: Some(reason), .. } = link.state() {
            break reason;
        }
        std::thread::yield_now();
    };
    assert!(reason.contains("did not answer within 0.05 s"), "{reason}");
    writer.stop(None);
}
