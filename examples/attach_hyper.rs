//! Documents on your own HTTP server, here hyper on smol: one path becomes a WebSocket and is handed to a node, all
//! others stay yours.

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::net::Ipv4Addr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use antiphon::op::DocumentId;
use antiphon::replica::Options;
use antiphon::storage::Continuity;
use antiphon_memory::MemoryStorage;
use antiphon_node::{Config, LinkOptions, Node, RedialPolicy};
use antiphon_websocket::{Client, Socket, SocketConfig, accept_key};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use hyper::rt::{Read, ReadBuf, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper::{Request, Response, StatusCode};
use smol::io::{AsyncRead, AsyncWrite};
use smol::net::TcpListener;
use smol_hyper::rt::FuturesIo;

fn main() -> Result<(), Box<dyn Error>> {
    smol::block_on(async {
        let document: DocumentId = "notes".parse()?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let url = format!("ws://{}/sync", listener.local_addr()?);
        let server = node().await?;
        smol::spawn(serve(listener, server.clone())).detach();

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
    })
}

async fn node() -> Result<Node, antiphon_node::Error> {
    let (node, driver) = Node::open(MemoryStorage::new(), Continuity::Proven, Config::default()).await?;
    smol::spawn(driver).detach();
    Ok(node)
}

// -------------------------------------------------------------------------------------------- the HTTP server

async fn serve(listener: TcpListener, node: Node) {
    while let Ok((stream, _)) = listener.accept().await {
        let node = node.clone();
        let service = service_fn(move |request| {
            let response = respond(request, &node);
            async { Ok::<_, Infallible>(response) }
        });
        let connection = http1::Builder::new().serve_connection(FuturesIo::new(stream), service).with_upgrades();
        smol::spawn(async { _ = connection.await }).detach(); // clients that break off are no concern of ours
    }
}

fn respond(mut request: Request<Incoming>, node: &Node) -> Response<String> {
    match request.uri().path() {
        "/sync" => upgrade(&mut request, node),
        "/" => Response::new(String::from("documents are at /sync\n")),
        _ => status(StatusCode::NOT_FOUND),
    }
}

/// Says yes to a WebSocket, and hands it to the node once hyper is done with it. Whether this client may is decided here.
fn upgrade(request: &mut Request<Incoming>, node: &Node) -> Response<String> {
    let is_upgrade =
        request.headers().get(UPGRADE).is_some_and(|what| what.as_bytes().eq_ignore_ascii_case(b"websocket"));
    let Some(key) = request.headers().get(SEC_WEBSOCKET_KEY).filter(|_| is_upgrade) else {
        return status(StatusCode::UPGRADE_REQUIRED);
    };
    let response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(CONNECTION, "upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_ACCEPT, accept_key(key.as_bytes()))
        .body(String::new());
    smol::spawn(attach(hyper::upgrade::on(request), node.clone())).detach();
    response.unwrap_or_else(|_| status(StatusCode::BAD_REQUEST))
}

async fn attach(upgrade: OnUpgrade, node: Node) {
    if let Ok(stream) = upgrade.await {
        let socket = Socket::upgraded(Stream(stream), node.frame_max(), &SocketConfig::default()).await;
        let _ = node.accept(socket, LinkOptions::default()); // it is shutting down
    }
}

fn status(status: StatusCode) -> Response<String> {
    let mut response = Response::new(format!("{status}\n"));
    *response.status_mut() = status;
    response
}

// -------------------------------------------------------------------------------------------- its streams

/// What hyper hands over, with the traits that smol knows.
struct Stream(Upgraded);

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(bytes);
        ready!(pin!(&mut self.0).poll_read(context, buffer.unfilled()))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        pin!(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        pin!(&mut self.0).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        pin!(&mut self.0).poll_shutdown(context)
    }
}
