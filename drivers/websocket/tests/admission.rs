//! Who may come in: paths, the hook that authenticates, and what the client says when it may not.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use antiphon::codes::Retry;
use antiphon::replica::Event;
use antiphon_node::{ConnectError, Connector, LinkOptions, Notice};
use antiphon_websocket::http::StatusCode;
use antiphon_websocket::{Client, Refusal, Server, ServerConfig};
use common::*;

/// Why the client gets no connection.
fn refused(client: Client) -> ConnectError {
    let mut client = client;
    wait(client.connect(FRAME_MAX)).map(|_| ()).expect_err("it is refused")
}

fn client(address: std::net::SocketAddr, path: &str) -> Client {
    Client::new(&format!("ws://{address}{path}")).expect("a good address")
}

#[test]
fn a_query_without_a_path_is_asked_for_at_the_root() {
    let server = serve(&Server::new(ServerConfig::default()).authenticate(|request| async move {
        let seen = (request.path().to_owned(), request.query().map(str::to_owned));
        let asked = ("/".to_owned(), Some("room=blue".to_owned()));
        if seen == asked { Ok(LinkOptions::default()) } else { Err(Refusal::forbidden(format!("{seen:?}"))) }
    }));
    let node = memory();
    wait(connect_with(&node.node, client(server.address, "?room=blue")).live()).expect("it is let in");
    node.stop(None);
    server.stop(None);
}

/// Lets in who has the right token, of the room that it is for.
fn guarded() -> Serving {
    let server = Server::new(ServerConfig::default()).path("/rooms/{room}".parse().expect("a good pattern"));
    serve(&server.authenticate(|request| async move {
        // Something that takes its time, as a database would.
        futures_lite::future::yield_now().await;
        let room = request.parameter("room").unwrap_or_default();
        match (request.bearer_token(), request.query()) {
            (Some("busy"), _) => Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the user database is away")
                .retry_after(Duration::from_secs(7))),
            (None, None) => Err(Refusal::unauthorized("a token is missing")),
            (Some("blue's"), _) | (None, Some("token=blue%27s")) if room == "blue" => {
                Ok(LinkOptions { principal: Some(Arc::from("ann")), ..LinkOptions::default() })
            }
            _ => Err(Refusal::forbidden(format!("the token is not for the room {room}"))),
        }
    }))
}

#[test]
fn the_hook_sees_path_headers_and_query_and_refuses_with_a_status() {
    let server = guarded();
    let with = |token: &str, path: &str| {
        client(server.address, path).header("authorization", &format!("Bearer {token}")).expect("a good header")
    };
    let error = refused(client(server.address, "/rooms/blue"));
    assert_eq!(error.retry(), Retry::Never);
    assert_eq!(error.reason(), "the server refused authentication (401 Unauthorized): a token is missing");
    let error = refused(with("blue's", "/rooms/red"));
    assert_eq!(error.reason(), "the server refused authentication (403 Forbidden): the token is not for the room red");
    let error = refused(with("busy", "/rooms/blue"));
    assert_eq!((error.retry(), error.retry_after()), (Retry::Later, Some(Duration::from_secs(7))));
    assert!(error.reason().contains("the user database is away"), "{error}");

    for client in [with("blue's", "/rooms/blue"), client(server.address, "/rooms/blue?token=blue%27s")] {
        let node = memory();
        let mut events = server.running.node.subscribe();
        wait(connect_with(&node.node, client).live()).expect("it is let in");
        let link = loop {
            if let Some(Notice::Event(Event::Connected { link, .. })) = wait(events.next()) {
                break link;
            }
        };
        assert_eq!(server.running.node.principal(link).as_deref(), Some("ann"));
        node.stop(None);
    }
    server.stop(None);
}

#[test]
fn other_paths_are_not_found() {
    let server = guarded();
    for path in ["/", "/rooms", "/rooms/", "/rooms/blue/", "/rooms/blue/kitchen", "/Rooms/blue", ""] {
        let error = refused(client(server.address, path));
        assert_eq!(error.retry(), Retry::Never);
        assert!(error.reason().contains("(404 Not Found): documents are served at /rooms/{room}"), "{path}: {error}");
    }
    server.stop(None);
    let open = serve(&Server::new(ServerConfig::default()).path("/sync/*".parse().expect("a good pattern")));
    for path in ["/sync/", "/sync/a", "/sync/a/b"] {
        wait(client(open.address, path).connect(FRAME_MAX)).map(|_| ()).expect("it is served");
    }
    refused(client(open.address, "/other"));
    open.stop(None);
}

/// What a server says to bytes that are not a WebSocket client's.
fn answer(server: &Serving, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.address).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("it is a socket");
    // It may have heard enough before the end.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let mut piece = [0; 1024];
    // Behind an upgrade come frames, and no end.
    while !answer.windows(4).any(|window| window == b"\r\n\r\n")
        && let Ok(count @ 1..) = stream.read(&mut piece)
    {
        answer.extend(&piece[..count]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn what_is_no_websocket_handshake_is_answered_in_http() {
    let server = plain();
    let get = |headers: &str| answer(&server, format!("GET / HTTP/1.1\r\nHost: x\r\n{headers}\r\n").as_bytes());
    let upgrade = "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n";
    for (said, status) in [
        (get(""), "426 Upgrade Required"),
        (get(&format!("{upgrade}Sec-WebSocket-Version: 8\r\nSec-WebSocket-Key: a\r\n")), "426 Upgrade Required"),
        (get(&format!("{upgrade}Sec-WebSocket-Version: 13\r\n")), "400 Bad Request"),
        (answer(&server, b"\x16\x03\x01 no HTTP at all\r\n\r\n"), "400 Bad Request"),
        (answer(&server, &[b'A'; 40_000]), "431 Request Header Fields Too Large"),
        (get(&"a: b\r\n".repeat(100)), "400 Bad Request"),
        (get(&format!("{upgrade}Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: a\r\n")), "101 Switching Protocols"),
    ] {
        assert!(said.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{status}: {said}");
    }
    server.stop(None);
}

#[test]
fn what_is_no_websocket_server_is_told_apart() {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("there is a port");
    let address = listener.local_addr().expect("it is bound");
    let saying = |what: &'static [u8]| {
        let listener = listener.try_clone().expect("it can be cloned");
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("somebody comes");
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(what);
        })
    };
    for (what, retry, said) in [
        (&b"SSH-2.0-OpenSSH_9.2\r\n\r\n"[..], Retry::Never, "is no WebSocket server"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", Retry::Never, "answered with 200 OK instead of a WebSocket"),
        (b"HTTP/1.1 302 Found\r\nlocation: /\r\n\r\n", Retry::Never, "answered with 302 Found"),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", Retry::Later, "can't take us now (502 Bad Gateway)"),
        (b"", Retry::Later, "broke off before the WebSocket was there"),
    ] {
        let server = saying(what);
        let error = refused(client(address, "/"));
        server.join().expect("no panic");
        assert_eq!(error.retry(), retry, "{error}");
        assert!(error.reason().contains(said), "{error}");
    }
}

#[test]
fn addresses_that_can_not_be_meant_are_refused_at_once() {
    for url in [
        "",
        "localhost:8048",
        "http://localhost",
        "ws://",
        "ws:///path",
        "ws://user@host/",
        "ws://host:0/",
        "ws://host:",
        "ws://host:65536/",
    ] {
        let error = Client::new(url).map(|_| ()).expect_err("no good address").to_string();
        assert!(error.contains("ws://HOST:PORT/PATH"), "{url}: {error}");
    }
    for url in ["ws://localhost", "ws://[::1]:8048/a?b", "wss://example.com/sync"] {
        Client::new(url).map(|_| ()).expect("a good address");
    }
}
