//! A relay that stores nothing: of those who come to the same path, each two get each other's frames. The session is
//! theirs: an acknowledgement means that it is durable at the other end, and the relay holds no ops and makes none.

use std::{collections::BTreeMap, error::Error, io, net::Ipv4Addr, sync::Arc};

use antiphon::{op::DocumentId, replica::Options, storage::Continuity};
use antiphon_memory::MemoryStorage;
use antiphon_node::{Config, FrameReceiver, FrameSender, Link, LinkOptions, Node, RedialPolicy, Transport};
use antiphon_websocket::{Client, Server, ServerConfig};
use bytes::Bytes;
use smol::channel::{Receiver, Sender, bounded};
use smol::{future::or, lock::Mutex, net::TcpListener, net::TcpStream};

/// Who waits for company, by path: the way to them, and what comes from them.
type Rooms = Mutex<BTreeMap<Arc<str>, (Sender<Bytes>, Receiver<Bytes>)>>;

async fn relay(server: Server, rooms: Arc<Rooms>, stream: TcpStream) -> io::Result<()> {
    let (socket, options) = server.handshake(stream, None).await?;
    let room = options.principal.unwrap_or_default();
    let ((to_peer, from_us), (to_us, from_peer)) = (bounded(16), bounded(16));
    let mut waiting = rooms.lock().await;
    let company = waiting.remove(&room).filter(|(peer, _)| !peer.is_closed());
    let (to_peer, from_peer) = company.unwrap_or_else(|| {
        waiting.insert(room, (to_us, from_us));
        (to_peer, from_peer)
    });
    drop(waiting);
    let (mut sender, mut receiver) = socket.split();
    let inward = async {
        while let Ok(Some(frame)) = receiver.receive().await
            && to_peer.send(frame).await.is_ok()
        {}
    };
    let outward = async {
        while let Ok(frame) = from_peer.recv().await
            && sender.send(frame).await.and(sender.flush().await).is_ok()
        {}
    };
    or(inward, outward).await;
    drop(from_peer);
    rooms.lock().await.retain(|_, (peer, _)| !peer.is_closed());
    sender.close().await
}

async fn replica(url: &str, document: &DocumentId, word: &'static str) -> Result<Link, Box<dyn Error>> {
    let (node, driver) = Node::open(MemoryStorage::new(), Continuity::Proven, Config::default()).await?;
    smol::spawn(driver).detach();
    node.open_document(document, Options::default())?;
    node.append(document, vec![word.into()]).await?;
    Ok(node.connect(Client::new(url)?, LinkOptions::default(), RedialPolicy::default())?)
}

fn main() -> Result<(), Box<dyn Error>> {
    smol::block_on(async {
        let server = Server::new(ServerConfig::default()).path("/{room}".parse()?).authenticate(|request| async move {
            Ok(LinkOptions { principal: request.parameter("room").map(Into::into), ..LinkOptions::default() })
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let (url, document) = (format!("ws://{}/duet", listener.local_addr()?), "notes".parse()?);
        let rooms = Arc::new(Rooms::default());
        smol::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                smol::spawn(relay(server.clone(), rooms.clone(), stream)).detach();
            }
        })
        .detach();
        let (one, other) = (replica(&url, &document, "hello").await?, replica(&url, &document, "world").await?);
        let ((heads, ops), _) = (one.in_step(&document).await?, other.in_step(&document).await?);
        println!("in step: 2 replicas, {ops} ops, heads {:016x}", heads.digest());
        Ok(())
    })
}
