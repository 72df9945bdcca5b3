//! Clients that do not keep to the rules: each is told what it did wrong, and costs little.

mod common;

use std::net::TcpStream;
use std::time::Duration;

use antiphon_node::{Connector, LinkState};
use antiphon_websocket::{Client, Server, ServerConfig, SocketConfig};
use async_io::Async;
use async_tungstenite::tungstenite::Message;
use async_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use async_tungstenite::{WebSocketStream, client_async};
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

#[test]
fn a_server_with_a_lower_limit_says_so_to_the_client() {
    let config = ServerConfig {
        socket: SocketConfig { message_max: 100, ..SocketConfig::default() },
        ..ServerConfig::default()
    };
    let server = serve(&Server::new(config));
    let writer = memory();
    open(&writer.node);
    writer.node.try_append(&document(), vec![vec![0; 1000].into()]).expect("it is open");
    let link = connect(&writer.node, &server.url());
    loop {
        if let LinkState::Connecting { reason: Some(reason), .. } = link.state() {
            assert!(reason.contains("the message is larger than the limit (1009)"), "{reason}");
            break;
        }
        std::thread::yield_now();
    }
    writer.stop(None);
    server.stop(None);
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
        client.connect().await.map(|_| ()).expect("there is room again");
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
    let first = wait(client.connect()).expect("there is room");
    let second = wait(client.connect()).expect("there is room");
    let full = wait(client.connect()).map(|_| ()).expect_err("there is none");
    assert_eq!(full.retry_after(), Some(Duration::from_secs(9)));
    assert!(full.reason().contains("there are too many connections"), "{full}");
    assert_eq!(limited.connections(), 2);
    drop(first);
    // When the server has seen that it is gone.
    while limited.connections() == 2 {
        std::thread::yield_now();
    }
    wait(client.connect()).map(|_| ()).expect("there is room again");
    drop(second);
    server.stop(None);
}
