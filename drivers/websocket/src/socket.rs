//! One WebSocket as a transport: a binary message is a frame.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use antiphon_node::{FrameReceiver, FrameSender, Transport};
use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use async_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use async_tungstenite::tungstenite::{Error, Message};
use bytes::Bytes;
use futures_lite::{AsyncRead, AsyncWrite, Stream};
use futures_sink::Sink;

use crate::limit::Permit;

/// What a byte stream must be to carry a WebSocket: a TCP connection, TLS, or what an HTTP server hands over.
pub trait ByteStream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> ByteStream for S {}

/// How much memory a WebSocket takes. The defaults suit many connections that are mostly idle.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SocketConfig {
    /// Bytes read at once. Allocated for as long as the connection lasts. Default 4 KiB.
    pub read_buffer: usize,
    /// Bytes of frames that are gathered for one write, where there are more than one. Default 16 KiB.
    pub write_buffer: usize,
}

impl Default for SocketConfig {
    fn default() -> Self {
        Self { read_buffer: 4 << 10, write_buffer: 16 << 10 }
    }
}

impl SocketConfig {
    pub(crate) fn protocol(&self, frame_max: u32) -> WebSocketConfig {
        let message_max = Some(frame_max as usize);
        WebSocketConfig::default()
            .read_buffer_size(self.read_buffer)
            .write_buffer_size(self.write_buffer)
            .max_message_size(message_max)
            .max_frame_size(message_max)
    }
}

/// A WebSocket whose handshake is done.
#[derive(Debug)]
pub struct Socket<S> {
    stream: WebSocketStream<S>,
    permit: Option<Permit>,
}

impl<S: ByteStream> Socket<S> {
    /// The server's end of a connection that an HTTP server has upgraded and handed over. Frames of up to `frame_max`
    /// bytes are taken ([`Node::frame_max`](antiphon_node::Node::frame_max)); a peer that sends a larger one is told so
    /// (1009) before there is memory for it.
    pub async fn upgraded(stream: S, frame_max: u32, config: &SocketConfig) -> Self {
        Self::new(WebSocketStream::from_raw_socket(stream, Role::Server, Some(config.protocol(frame_max))).await)
    }

    pub(crate) async fn with_rest(stream: S, rest: Vec<u8>, protocol: WebSocketConfig, permit: Permit) -> Self {
        let stream = WebSocketStream::from_partially_read(stream, rest, Role::Server, Some(protocol));
        Self { stream: stream.await, permit: Some(permit) }
    }

    pub(crate) fn new(stream: WebSocketStream<S>) -> Self {
        Self { stream, permit: None }
    }
}

impl<S: ByteStream> Transport for Socket<S> {
    type Sender = SocketSender<S>;
    type Receiver = SocketReceiver<S>;

    fn split(self) -> (Self::Sender, Self::Receiver) {
        let shared = Arc::new(Shared(Mutex::new(State { stream: self.stream, verdict: None, _permit: self.permit })));
        (SocketSender(shared.clone()), SocketReceiver(shared))
    }
}

#[derive(Debug)]
struct Shared<S>(Mutex<State<S>>);

#[derive(Debug)]
struct State<S> {
    stream: WebSocketStream<S>,
    /// What the peer did wrong, to be said when the connection is closed.
    verdict: Option<(CloseCode, &'static str)>,
    /// Counts the connection for as long as it lasts.
    _permit: Option<Permit>,
}

impl<S> Shared<S> {
    fn lock(&self) -> MutexGuard<'_, State<S>> {
        // A stream in which something panicked returns errors at worst.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The half of a [`Socket`] that sends.
#[derive(Debug)]
pub struct SocketSender<S>(Arc<Shared<S>>);

/// The half of a [`Socket`] that receives.
#[derive(Debug)]
pub struct SocketReceiver<S>(Arc<Shared<S>>);

impl<S: ByteStream> FrameSender for SocketSender<S> {
    fn send(&mut self, frame: Bytes) -> impl Future<Output = io::Result<()>> + Send {
        self.push(Message::Binary(frame))
    }

    fn flush(&mut self) -> impl Future<Output = io::Result<()>> + Send {
        poll_fn(|context| Pin::new(&mut self.0.lock().stream).poll_flush(context).map_err(broken))
    }

    async fn close(&mut self) -> io::Result<()> {
        let verdict = self.0.lock().verdict;
        let (code, reason) = verdict.unwrap_or((CloseCode::Normal, ""));
        self.push(Message::Close(Some(CloseFrame { code, reason: reason.into() }))).await?;
        self.flush().await?;
        if verdict.is_some() {
            // A socket that is dropped with something unread in it takes back what it has sent, and the peer would never
            // hear what it did wrong. What it sends is no longer understood.
            let mut scratch = vec![0; 4096]; // not in the future: that is held by every idle connection
            poll_fn(|context| Pin::new(self.0.lock().stream.get_mut()).poll_close(context)).await?;
            while poll_fn(|context| Pin::new(self.0.lock().stream.get_mut()).poll_read(context, &mut scratch)).await?
                > 0
            {}
        }
        Ok(())
    }
}

impl<S: ByteStream> SocketSender<S> {
    /// Not an `async fn`: that would have room for the message twice, in every connection.
    fn push(&mut self, message: Message) -> impl Future<Output = io::Result<()>> + Send {
        let mut message = Some(message);
        poll_fn(move |context| {
            let mut state = self.0.lock();
            let mut stream = Pin::new(&mut state.stream);
            ready!(stream.as_mut().poll_ready(context)).map_err(broken)?;
            Poll::Ready(message.take().map_or(Ok(()), |message| stream.start_send(message)).map_err(broken))
        })
    }
}

impl<S: ByteStream> FrameReceiver for SocketReceiver<S> {
    async fn receive(&mut self) -> io::Result<Option<Bytes>> {
        poll_fn(|context| self.0.lock().poll_receive(context)).await
    }
}

impl<S: ByteStream> State<S> {
    fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        loop {
            match ready!(Pin::new(&mut self.stream).poll_next(context)) {
                None => return Poll::Ready(Ok(None)),
                Some(Ok(Message::Binary(frame))) => return Poll::Ready(Ok(Some(frame))),
                Some(Ok(Message::Text(_))) => {
                    self.verdict = Some((CloseCode::Unsupported, "one binary message is one frame"));
                    return Poll::Ready(Err(invalid("the peer sent a text message: only binary ones are frames")));
                }
                Some(Ok(Message::Close(Some(said))))
                    if said.code != CloseCode::Normal && said.code != CloseCode::Away =>
                {
                    let said = format!("the peer closed the connection: {} ({})", said.reason, said.code);
                    return Poll::Ready(Err(io::Error::other(said)));
                }
                // The answers are sent by the stream itself.
                Some(Ok(Message::Close(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Err(error)) => {
                    self.verdict = match &error {
                        Error::Capacity(_) => Some((CloseCode::Size, "the message is larger than the limit")),
                        Error::Protocol(_) => Some((CloseCode::Protocol, "this is not the WebSocket protocol")),
                        Error::Utf8(_) => Some((CloseCode::Unsupported, "one binary message is one frame")),
                        _ => None,
                    };
                    return Poll::Ready(Err(broken(error)));
                }
            }
        }
    }
}

fn invalid(reason: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.into())
}

fn broken(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        Error::ConnectionClosed | Error::AlreadyClosed => io::ErrorKind::NotConnected.into(),
        error => invalid(error.to_string()),
    }
}
