//! Clients that do not keep to the rules: each is told what it did wrong, and costs little.

mod common;

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use antiphon_memory::MemoryStorage;
use antiphon_node::{Config, Connector, LinkState};
use antiphon_websocket::{Client, Server, ServerConfig};
use async_io::Async;
use async_tungstenite::tungstenite::Message;
use async_tungstenite::tungstenite::protocol::CloseFrame;
use async_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use async_tungstenite::{WebSocketStream, accept_async, client_async};
use common::*;
use futures_lite::{AsyncReadExt, AsyncWriteExt, StreamExt};

async fn socket(server: &Serving) -> WebSocketStream<Async<TcpStream>> {
    let stream = Async::<TcpStream>::connect(server.address).await.expect("it listens");
    client_async(server.url(), stream).await.expect("it is let in").0
}

/// How the server closes the connection.
async fn close_code(mut socket: WebSocketStream<Async<TcpStream>>) -> Option<CloseCode> {
    while let Some(Ok(message)) = socket.next().await {
        if let Message::Close(close) = message {
            return close.map(|close| close.code);
        }
    }
    None
}

#[test]
fn what_is_wrong_is_said_by_the_close_code() {
    let server = plain();
    wait(async {
        let mut text = socket(&server).await;
        text.send(Message::text("hello?")).await.expect("it is sent");
        assert_eq!(close_code(text).await, Some(CloseCode::Unsupported));

        let mut large = socket(&server).await;
        // It may be closed before all of it is sent.
        let _ = large.send(Message::binary(vec![0; 100_000])).await;
        assert_eq!(close_code(large).await, Some(CloseCode::Size));

        // Said, and never sent: nothing may be reserved for it.
        let mut boast = socket(&server).await;
        let mut header = vec![0x82, 0xff];
        header.extend((1_u64 << 62).to_be_bytes());
        header.extend([0; 4]);
        boast.get_mut().write_all(&header).await.expect("it is sent");
        assert_eq!(close_code(boast).await, Some(CloseCode::Size));

        let mut unmasked = socket(&server).await;
        unmasked.get_mut().write_all(&[0x82, 0x01, 0x00]).await.expect("it is sent");
        assert_eq!(close_code(unmasked).await, Some(CloseCode::Protocol));

        // Hello that is none: the session says why, and then the connection is closed in order.
        let mut garbage = socket(&server).await;
        garbage.send(Message::binary(vec![0xff; 100])).await.expect("it is sent");
        assert_eq!(close_code(garbage).await, Some(CloseCode::Normal));
    });
    server.stop(None);
}

/// A node that takes frames of so many bytes.
fn taking(frame_max: u32) -> Running<MemoryStorage> {
    let mut config = Config::default();
    config.replica.session.limits.frame = frame_max;
    Running::start(MemoryStorage::new(), config)
}

#[test]
fn messages_are_taken_up_to_the_limit_of_the_replica_and_no_further() {
    for frame_max in [4 << 10, 256 << 10] {
        let running = taking(frame_max);
        let server = serve_with(&Server::new(ServerConfig::default()), running, (Ipv4Addr::LOCALHOST, 0).into());
        wait(async {
            for (more, code) in [(0, CloseCode::Normal), (1, CloseCode::Size)] {
                let mut client = socket(&server).await;
                // The first is looked at, and is no Hello.
                let _ = client.send(Message::binary(vec![0xff; frame_max as usize + more])).await;
                assert_eq!(close_code(client).await, Some(code), "{frame_max} and {more} bytes");
            }
        });
        let (writer, reader) = (taking(frame_max), taking(frame_max));
        let document = open(&writer.node);
        open(&reader.node);
        writer.node.try_append(&document, vec![vec![7; 1 << 20].into()]).expect("it is open");
        wait(connect(&writer.node, &server.url()).acknowledged(&document)).expect("frames pass one way");
        wait(connect(&reader.node, &server.url()).in_step(&document)).expect("and the other");
        assert_eq!(reader.node.document(&document).map(|(_, tail)| tail), Some(1));
        for node in [writer, reader] {
            node.stop(None);
        }
        server.stop(None);
    }
}

#[test]
fn why_a_server_closes_is_told_by_the_client() {
    let listener = Async::<TcpListener>::bind((Ipv4Addr::LOCALHOST, 0)).expect("there is a port");
    let url = format!("ws://{}/", listener.get_ref().local_addr().expect("it is bound"));
    let closing = std::thread::spawn(move || {
        wait(async {
            let (stream, _) = listener.accept().await.expect("somebody comes");
            let mut socket = accept_async(stream).await.expect("it is a WebSocket");
            let close = CloseFrame { code: CloseCode::Size, reason: "the message is larger than the limit".into() };
            socket.close(Some(close)).await.expect("it is sent");
            while let Some(Ok(_)) = socket.next().await {}
        });
    });
    let client = memory();
    let link = connect(&client.node, &url);
    let reason = loop {
        if let LinkState::Connecting { reason: Some(reason), .. } = link.state() {
            break reason;
        }
        std::thread::yield_now();
    };
    assert!(reason.contains("the message is larger than the limit (1009)"), "{reason}");
    closing.join().expect("no panic");
    client.stop(None);
}

#[test]
fn who_does_not_finish_the_handshake_is_not_waited_for() {
    let timeout = Duration::from_millis(100);
    let config = ServerConfig { handshake_timeout: timeout, handshakes_max: 2, ..ServerConfig::default() };
    let server = serve(&Server::new(config));
    wait(async {
        let mut silent = Vec::new();
        for _ in 0..6 {
            let mut stream = Async::<TcpStream>::connect(server.address).await.expect("the system lets it in");
            stream.write_all(b"GET / HTT").await.expect("it is sent");
            silent.push(stream);
        }
        // They are dealt with two at a time, and then it is the turn of who behaves.
        let mut client = Client::new(&server.url()).expect("a good address");
        client.connect(FRAME_MAX).await.map(|_| ()).expect("there is room again");
        for mut stream in silent {
            assert_eq!(stream.read(&mut [0; 100]).await.unwrap_or(0), 0);
        }
    });
    server.stop(None);
}

#[test]
fn beyond_so_many_connections_one_is_told_to_come_back() {
    let config = ServerConfig { connections_max: 2, retry_after: Duration::from_secs(9), ..ServerConfig::default() };
    let limited = Server::new(config);
    let server = serve(&limited);
    let mut client = Client::new(&server.url()).expect("a good address");
    let first = wait(client.connect(FRAME_MAX)).expect("there is room");
    let second = wait(client.connect(FRAME_MAX)).expect("there is room");
    let full = wait(client.connect(FRAME_MAX)).map(|_| ()).expect_err("there is none");
    assert_eq!(full.retry_after(), Some(Duration::from_secs(9)));
    assert!(full.reason().contains("there are too many connections"), "{full}");
    assert_eq!(limited.connections(), 2);
    drop(first);
    // When the server has seen that it is gone.
    while limited.connections() == 2 {
        std::thread::yield_now();
    }
    wait(client.connect(FRAME_MAX)).map(|_| ()).expect("there is room again");
    drop(second);
    server.stop(None);
}
