//! The server: HTTP requests that become WebSockets, if they may.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use antiphon::retry::Backoff;
use antiphon::rng::Rng;
use antiphon_node::{LinkOptions, Node};
use async_executor::Executor;
use async_io::{Async, Timer};
use async_tungstenite::tungstenite::http::StatusCode;
use futures_lite::future::or;

use crate::handshake::{self, Refusal, UpgradeRequest};
use crate::limit::{Limit, Permit};
use crate::pattern::Pattern;
use crate::socket::{ByteStream, Socket, SocketConfig};
use crate::stream::Tcp;

/// How a server behaves.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServerConfig {
    /// Connections at a time; those beyond are refused with 503. Default 16,384.
    pub connections_max: usize,
    /// Handshakes under way at a time; more connections wait until they are accepted. Default 256.
    pub handshakes_max: usize,
    /// How long a handshake may take, `authenticate` included. Default 10 s.
    pub handshake_timeout: Duration,
    /// When those that are refused for want of room are told to come back. Default 5 s.
    pub retry_after: Duration,
    /// How much memory a connection takes.
    pub socket: SocketConfig,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            connections_max: 16_384,
            handshakes_max: 256,
            handshake_timeout: Duration::from_secs(10),
            retry_after: Duration::from_secs(5),
            socket: SocketConfig::default(),
        }
    }
}

type Verdict = Pin<Box<dyn Future<Output = Result<LinkOptions, Refusal>> + Send>>;

/// Lets WebSockets in. Clones are the same server, with the same limits.
#[derive(Clone)]
pub struct Server {
    config: ServerConfig,
    pattern: Pattern,
    authenticate: Arc<dyn Fn(UpgradeRequest) -> Verdict + Send + Sync>,
    connections: Limit,
    handshakes: Limit,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("config", &self.config).field("pattern", &self.pattern).finish_non_exhaustive()
    }
}

impl Server {
    /// A server for the path `/` that lets everybody in.
    pub fn new(config: ServerConfig) -> Self {
        let (connections, handshakes) = (Limit::new(config.connections_max), Limit::new(config.handshakes_max.max(1)));
        let everybody = |_| -> Verdict { Box::pin(std::future::ready(Ok(LinkOptions::default()))) };
        Self { config, pattern: Pattern::root(), authenticate: Arc::new(everybody), connections, handshakes }
    }

    /// Serves the paths that fit `pattern`, and no others: they are answered with 404. See [`Pattern`].
    #[must_use]
    pub fn path(self, pattern: Pattern) -> Self {
        Self { pattern, ..self }
    }

    /// Decides about each request before it becomes a WebSocket: lets it in as what the options say, or refuses it with
    /// a status.
    #[must_use]
    pub fn authenticate<F, D>(self, decide: F) -> Self
    where
        F: Fn(UpgradeRequest) -> D + Send + Sync + 'static,
        D: Future<Output = Result<LinkOptions, Refusal>> + Send + 'static,
    {
        Self { authenticate: Arc::new(move |request| Box::pin(decide(request))), ..self }
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.connections.count()
    }

    /// Answers the HTTP request that comes on a byte stream, and makes a WebSocket of it, on which frames of up to
    /// `frame_max` bytes are taken ([`Node::frame_max`]); a client that sends a larger one is told so (1009) before there
    /// is memory for it.
    ///
    /// # Errors
    /// If it is refused, which the client was told then; or does not get that far.
    pub async fn handshake<S: ByteStream>(
        &self,
        stream: S,
        peer: Option<SocketAddr>,
        frame_max: u32,
    ) -> io::Result<(Socket<S>, LinkOptions)> {
        let timeout = self.config.handshake_timeout;
        let late = async {
            Timer::after(timeout).await;
            Err(io::Error::new(io::ErrorKind::TimedOut, "the handshake took too long"))
        };
        or(self.shake_hands(stream, peer, frame_max), late).await
    }

    async fn shake_hands<S: ByteStream>(
        &self,
        mut stream: S,
        peer: Option<SocketAddr>,
        frame_max: u32,
    ) -> io::Result<(Socket<S>, LinkOptions)> {
        let (request, rest) = match handshake::read(&mut stream, peer).await? {
            Ok(read) => read,
            Err(refusal) => return Err(handshake::refuse(&mut stream, &refusal).await),
        };
        match self.admit(request).await {
            Ok((key, options, permit)) => {
                handshake::accept(&mut stream, &key).await?;
                Ok((Socket::with_rest(stream, rest, self.config.socket.protocol(frame_max), permit).await, options))
            }
            Err(refusal) => Err(handshake::refuse(&mut stream, &refusal).await),
        }
    }

    async fn admit(&self, mut request: UpgradeRequest) -> Result<(String, LinkOptions, Permit), Refusal> {
        let path = request.path().to_owned();
        let not_found = || Refusal::new(StatusCode::NOT_FOUND, format!("documents are served at {}", self.pattern));
        request.parameters = self.pattern.parameters(&path).ok_or_else(not_found)?;
        let key = request.websocket_key()?;
        let busy = || {
            let refusal = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "there are too many connections");
            refusal.retry_after(self.config.retry_after)
        };
        let permit = self.connections.try_take().ok_or_else(busy)?;
        let options = (self.authenticate)(request).await?;
        Ok((key, options, permit))
    }

    /// Listens on an address; port 0 is any that is free.
    ///
    /// # Errors
    /// If the address can't be had.
    pub fn listen(&self, address: impl Into<SocketAddr>) -> io::Result<Listener> {
        let listener = Async::<TcpListener>::bind(address)?;
        let address = listener.get_ref().local_addr()?;
        Ok(Listener { server: self.clone(), listener, address })
    }
}

/// A server's socket, and those who come to it.
#[derive(Debug)]
pub struct Listener {
    server: Server,
    listener: Async<TcpListener>,
    address: SocketAddr,
}

impl Listener {
    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Lets connections into a node, until the node shuts down. Spawn it beside the node's driver.
    pub async fn serve(self, node: Node) {
        let executor = Arc::new(Executor::new());
        // A task of its own, so that the socket is looked at when somebody comes, and not whenever this future is.
        let accepting = executor.spawn(self.accept(Arc::downgrade(&executor), node.clone()));
        executor.run(or(accepting, node.closing())).await;
    }

    async fn accept(self, executor: Weak<Executor<'static>>, node: Node) {
        let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_secs(1));
        let mut chance = Rng::new(self.address.port().into());
        loop {
            let permit = self.server.handshakes.take().await;
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    backoff.reset();
                    let Some(executor) = executor.upgrade() else { return };
                    executor.spawn(let_in(self.server.clone(), stream, peer, node.clone(), permit)).detach();
                }
                // Out of file descriptors, say: others may be closed meanwhile.
                Err(_) => _ = Timer::after(backoff.fail(&mut chance)).await,
            }
        }
    }
}

async fn let_in(server: Server, stream: Async<TcpStream>, peer: SocketAddr, node: Node, permit: Permit) {
    let Ok(stream) = Tcp::new(stream) else { return };
    if let Ok((socket, options)) = server.handshake(stream, Some(peer), node.frame_max()).await {
        let _ = node.accept(socket, options); // it is shutting down
    }
    drop(permit);
}
