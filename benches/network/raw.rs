//! The raw baselines' end: WebSockets with nothing above them, and rows with nothing around them.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;

use antiphon_websocket::SocketConfig;
use async_tungstenite::tungstenite::Message;
use async_tungstenite::tungstenite::protocol::WebSocketConfig;
use async_tungstenite::{WebSocketStream, accept_async_with_config, client_async_with_config};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use rusqlite::Connection;
use smol::Async;

/// One connection. It has the buffers that those of antiphon have.
pub(crate) struct Socket(WebSocketStream<Async<TcpStream>>);

fn config() -> WebSocketConfig {
    let SocketConfig { read_buffer, write_buffer } = SocketConfig::default();
    WebSocketConfig::default().read_buffer_size(read_buffer).write_buffer_size(write_buffer)
}

impl Socket {
    pub(crate) async fn connect(server: SocketAddr) -> Self {
        let stream = Async::<TcpStream>::connect(server).await.expect("the server listens");
        stream.get_ref().set_nodelay(true).expect("it is a TCP socket");
        let socket = client_async_with_config(format!("ws://{server}/"), stream, Some(config())).await;
        Self(socket.expect("the server speaks WebSocket").0)
    }

    /// The next message; `None` when the peer is gone.
    pub(crate) async fn receive(&mut self) -> Option<Bytes> {
        loop {
            match self.0.next().await?.ok()? {
                Message::Binary(message) => return Some(message),
                Message::Close(_) => return None,
                _ => {}
            }
        }
    }

    /// Takes a message, which may stay in the buffer.
    pub(crate) async fn feed(&mut self, message: Bytes) {
        self.0.feed(Message::Binary(message)).await.expect("the peer is there");
    }

    pub(crate) async fn flush(&mut self) {
        self.0.flush().await.expect("the peer is there");
    }

    pub(crate) async fn send(&mut self, message: Bytes) {
        self.feed(message).await;
        self.flush().await;
    }
}

/// Serves each connection in a task of its own, and returns where.
pub(crate) fn listen<F>(serve: impl Fn(Socket) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = Async::<TcpListener>::bind((Ipv4Addr::LOCALHOST, 0)).expect("there is a port");
    let address = listener.get_ref().local_addr().expect("it is bound");
    let accepting = async move {
        loop {
            let (stream, _) = listener.accept().await.expect("a client comes");
            stream.get_ref().set_nodelay(true).expect("it is a TCP socket");
            let socket = accept_async_with_config(stream, Some(config())).await.expect("it speaks WebSocket");
            smol::spawn(serve(Socket(socket))).detach();
        }
    };
    smol::spawn(accepting).detach();
    address
}

/// The name of a database of rows in its directory.
pub(crate) const ROWS_NAME: &str = "raw.db";

/// Opens a database with the settings that antiphon's has, where each op is a row, with nothing that finds, judges or
/// checks it.
pub(crate) fn open_rows(directory: &Path) -> Connection {
    let database = Connection::open(directory.join(ROWS_NAME)).expect("there is room for a database");
    let schema = "
        PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA cache_size = -16384;
        PRAGMA wal_autocheckpoint = 4096;
        CREATE TABLE IF NOT EXISTS op (document INTEGER, position INTEGER, author BLOB, seq INTEGER, body BLOB,
            PRIMARY KEY (document, position)) WITHOUT ROWID;";
    database.execute_batch(schema).expect("there is room for a table");
    database
}

/// What `INSERT_ROW` is given stands in this order.
pub(crate) const INSERT_ROW: &str =
    "INSERT INTO op (document, position, author, seq, body) VALUES (?1, ?2, ?3, ?4, ?5)";
