//! A relay that stores nothing: of those who come to the same path, each two get each other's frames. The session is
//! theirs: an acknowledgement means that it is durable at the other end, and the relay holds no ops and makes none.

use std::{cell::RefCell, collections::BTreeMap, error::Error, io, net::Ipv4Addr, rc::Rc, sync::Arc};

use antiphon::{replica::Options, storage::Continuity, wire::Limits};
use antiphon_memory::MemoryStorage;
use antiphon_node::{Config, FrameReceiver, FrameSender, LinkOptions, Node, RedialPolicy, Transport};
use antiphon_websocket::{Client, Server, ServerConfig};
use bytes::Bytes;
use smol::channel::{Receiver, Sender, bounded};
use smol::{LocalExecutor, future::or, net::TcpListener, net::TcpStream};

/// Who waits for company, by path: the way to them, and what comes from them.
type Rooms = RefCell<BTreeMap<Arc<str>, (Sender<Bytes>, Receiver<Bytes>)>>;

async fn relay(server: Server, rooms: Rc<Rooms>, stream: TcpStream) -> io::Result<()> {
    let (socket, options) = server.handshake(stream, None, Limits::default().frame).await?;
    let (mut sender, mut receiver) = socket.split();
    let ((to_peer, from_us), (to_us, from_peer)) = (bounded(16), bounded(16));
    rooms.borrow_mut().retain(|_, (peer, _)| !peer.is_closed());
    let room = options.principal.unwrap_or_default();
    let company = rooms.borrow_mut().remove(&room);
    let company = company.or_else(|| rooms.borrow_mut().insert(room, (to_us, from_us)));
    let (to_peer, from_peer) = company.unwrap_or((to_peer, from_peer));
    let inward = until_over(async || to_peer.send(receiver.receive().await.ok()??).await.ok());
    let outward = until_over(async || sender.send(from_peer.recv().await.ok()?).await.and(sender.flush().await).ok());
    or(inward, outward).await;
    sender.close().await
}

async fn until_over(mut step: impl AsyncFnMut() -> Option<()>) {
    while step().await.is_some() {}
}

fn main() -> Result<(), Box<dyn Error>> {
    let (executor, rooms, document) = (Rc::new(LocalExecutor::new()), Rc::<Rooms>::default(), "notes".parse()?);
    smol::block_on(executor.run(async {
        let server = Server::new(ServerConfig::default()).path("/{room}".parse()?).authenticate(|request| async move {
            Ok(LinkOptions { principal: request.parameter("room").map(Into::into), ..LinkOptions::default() })
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let (url, here, mut links) = (format!("ws://{}/duo", listener.local_addr()?), executor.clone(), Vec::new());
        let _accepting = executor.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                here.spawn(relay(server.clone(), rooms.clone(), stream)).detach();
            }
        });
        for word in ["hello", "world"] {
            let (node, driver) = Node::open(MemoryStorage::new(), Continuity::Proven, Config::default()).await?;
            smol::spawn(driver).detach();
            node.open_document(&document, Options::default())?;
            node.append(&document, vec![word.into()]).await?;
            links.push(node.connect(Client::new(&url)?, LinkOptions::default(), RedialPolicy::default())?);
        }
        let ((heads, ops), _) = (links[0].in_step(&document).await?, links[1].in_step(&document).await?);
        println!("in step: 2 replicas, {ops} ops, heads {:016x}", heads.digest());
        Ok(())
    }))
}
