//! Documents on your own HTTP server, here axum on tokio: one route becomes a WebSocket and is handed to a node, whose
//! driver is a task like any other.

use std::error::Error;
use std::net::Ipv4Addr;

use antiphon::op::DocumentId;
use antiphon::replica::Options;
use antiphon::storage::Continuity;
use antiphon_memory::MemoryStorage;
use antiphon_node::{Config, LinkOptions, Node, RedialPolicy};
use antiphon_websocket::{Client, Socket, SocketConfig, accept_key};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio_util::compat::TokioAsyncReadCompatExt;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let document: DocumentId = "notes".parse()?;
    let server = node().await?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let url = format!("ws://{}/sync", listener.local_addr()?);
    let home = get(|| async { "documents are at /sync\n" });
    let app = Router::new().route("/", home).route("/sync", get(upgrade)).with_state(server.clone());
    tokio::spawn(async { axum::serve(listener, app).await });

    let client = node().await?;
    client.open_document(&document, Options::default())?;
    let link = client.connect(Client::new(&url)?, LinkOptions::default(), RedialPolicy::default())?;
    client.append(&document, vec!["from the client".into()]).await?;
    link.acknowledged(&document).await?;

    server.open_document(&document, Options::default())?;
    server.append(&document, vec!["from the server".into()]).await?;
    let mut log = client.follow(&document, 1);
    log.next().await?; // it has come
    let (heads, ops) = link.in_step(&document).await?;

    client.shutdown(None).await?;
    server.shutdown(None).await?;
    println!("in step: 2 replicas, {ops} ops, heads {:016x}", heads.digest());
    Ok(())
}

async fn node() -> Result<Node, antiphon_node::Error> {
    let (node, driver) = Node::open(MemoryStorage::new(), Continuity::Proven, Config::default()).await?;
    tokio::spawn(driver);
    Ok(node)
}

/// Says yes to a WebSocket, and hands it to the node once HTTP is done with it. Whether this client may is decided here.
async fn upgrade(State(node): State<Node>, mut request: Request) -> Response {
    let is_upgrade =
        request.headers().get(UPGRADE).is_some_and(|what| what.as_bytes().eq_ignore_ascii_case(b"websocket"));
    let Some(key) = request.headers().get(SEC_WEBSOCKET_KEY).filter(|_| is_upgrade) else {
        return StatusCode::UPGRADE_REQUIRED.into_response();
    };
    let accepted = accept_key(key.as_bytes());
    tokio::spawn(attach(hyper::upgrade::on(&mut request), node));
    let headers = [(CONNECTION, "upgrade"), (UPGRADE, "websocket"), (SEC_WEBSOCKET_ACCEPT, accepted.as_str())];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

async fn attach(upgrade: OnUpgrade, node: Node) {
    if let Ok(stream) = upgrade.await {
        let socket = Socket::upgraded(TokioIo::new(stream).compat(), node.frame_max(), &SocketConfig::default()).await;
        let _ = node.accept(socket, LinkOptions::default()); // it is shutting down
    }
}
