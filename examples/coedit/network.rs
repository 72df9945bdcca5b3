//! The network between the participants and the server: one proxy for each participant, which counts the bytes that go
//! through it and can cut the connection.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use smol::channel::{Receiver, Sender, bounded};
use smol::future::{or, zip};
use smol::io::{AsyncReadExt, AsyncWriteExt};
use smol::net::{TcpListener, TcpStream};

/// A participant's way to the server.
#[derive(Clone)]
pub(crate) struct Line {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    bytes: AtomicU64,
    /// Dropped, it cuts the connection that there is.
    connection: Mutex<Option<Sender<()>>>,
}

impl Line {
    /// A line to a server, which may come and go.
    pub(crate) async fn to(server: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let line = Self { address: listener.local_addr()?, shared: Arc::default() };
        smol::spawn(carry_all(listener, server, line.shared.clone())).detach();
        Ok(line)
    }

    /// Where the participant connects to.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Bytes that went through it, both ways.
    pub(crate) fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }

    /// Cuts the connection at once, wherever in a frame it is; false if there is none.
    pub(crate) fn cut(&self) -> bool {
        self.shared.set(None)
    }
}

impl Shared {
    fn set(&self, connection: Option<Sender<()>>) -> bool {
        let mut now = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *now, connection).is_some()
    }
}

/// Carries one connection after the other: a participant has one at a time.
async fn carry_all(listener: TcpListener, server: SocketAddr, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        // While the server is gone, who connects is hung up on.
        let Ok(server) = TcpStream::connect(server).await else { continue };
        let (connection, is_cut) = bounded(1);
        shared.set(Some(connection));
        or(carry(client, server, &shared), cut(is_cut)).await;
        shared.set(None);
    }
}

async fn cut(is_cut: Receiver<()>) {
    let _ = is_cut.recv().await; // it is never sent anything: this is its end
}

async fn carry(client: TcpStream, server: TcpStream, shared: &Shared) {
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    zip(copy(client.clone(), server.clone(), shared), copy(server, client, shared)).await;
}

async fn copy(mut from: TcpStream, mut to: TcpStream, shared: &Shared) {
    let mut buffer = vec![0; 32 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if to.write_all(&buffer[..count]).await.is_err() {
            break;
        }
        shared.bytes.fetch_add(count as u64, Ordering::Relaxed);
    }
    let _ = to.shutdown(Shutdown::Write);
}
