//! What carries frames: two halves, and who makes them.

use std::fmt;
use std::future::Future;
use std::io;
use std::time::Duration;

use antiphon::codes::Retry;
use antiphon::session;
use bytes::Bytes;

/// A connection that carries whole frames both ways, as two halves that are used side by side.
///
/// Any pair of a [`FrameSender`] and a [`FrameReceiver`] is one. [Writing a connector](crate::guide) shows one from
/// scratch.
pub trait Transport: Send + 'static {
    /// The half that sends.
    type Sender: FrameSender;
    /// The half that receives.
    type Receiver: FrameReceiver;

    /// What it does to frames. By default they arrive whole, once and in order, or the connection is gone.
    fn kind(&self) -> session::Transport {
        session::Transport::Reliable
    }

    /// The two halves. The connection lasts until both are dropped, or it breaks.
    fn split(self) -> (Self::Sender, Self::Receiver);
}

impl<S: FrameSender, R: FrameReceiver> Transport for (S, R) {
    type Sender = S;
    type Receiver = R;

    fn split(self) -> (S, R) {
        self
    }
}

/// The half of a transport that sends.
///
/// One call at a time. A call whose future is dropped before it is ready is not followed by another: the connection is
/// given up.
pub trait FrameSender: Send + 'static {
    /// Takes one frame. It may stay in a buffer until [`flush`](Self::flush).
    ///
    /// While the future is pending, the transport is taken to be full; a transport that is full for longer than
    /// [`Config::write_deadline`](crate::Config::write_deadline) is cut.
    ///
    /// # Errors
    /// If the connection is gone.
    fn send(&mut self, frame: Bytes) -> impl Future<Output = io::Result<()>> + Send;

    /// Brings everything that was taken on its way. Called once for all frames that have gathered, not for each.
    ///
    /// # Errors
    /// If the connection is gone.
    fn flush(&mut self) -> impl Future<Output = io::Result<()>> + Send {
        std::future::ready(Ok(()))
    }

    /// Says that nothing more will come, after everything that was taken. The receiving half goes on until the peer has
    /// answered, or a deadline is over.
    ///
    /// # Errors
    /// If the connection is gone.
    fn close(&mut self) -> impl Future<Output = io::Result<()>> + Send {
        self.flush()
    }
}

/// The half of a transport that receives.
pub trait FrameReceiver: Send + 'static {
    /// The next frame; `None` when the peer has closed the connection.
    ///
    /// Whoever implements it must not allocate on the peer's word alone: a frame has at most as many bytes as
    /// [`Node::frame_max`](crate::Node::frame_max) says, and on [datagrams](session::Transport::Datagram) the trailer.
    ///
    /// # Errors
    /// If the connection is gone. It is not asked again.
    fn receive(&mut self) -> impl Future<Output = io::Result<Option<Bytes>>> + Send;
}

/// Makes connections to one peer, again and again.
pub trait Connector: Send + 'static {
    /// What it makes.
    type Transport: Transport;

    /// Connects. It may take as long as it wants to: deadlines are the connector's own.
    ///
    /// Frames of up to `frame_max` bytes come: what is made must take those, and may break off where one is larger.
    ///
    /// # Errors
    /// If there is no connection. The error says whether to try again.
    fn connect(&mut self, frame_max: u32) -> impl Future<Output = Result<Self::Transport, ConnectError>> + Send;
}

/// Why there is no connection, and whether to try again.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConnectError {
    reason: String,
    retry: Retry,
    retry_after: Option<Duration>,
}

impl ConnectError {
    /// It may work later: the peer is not there, or the network.
    pub fn later(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), retry: Retry::Later, retry_after: None }
    }

    /// It won't work until something is changed: an address, a token, a certificate. The reason should say what.
    pub fn never(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), retry: Retry::Never, retry_after: None }
    }

    /// The peer said when to come back.
    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..self }
    }

    /// It will work now: nothing was wrong with the peer or the network.
    #[must_use]
    pub(crate) fn at_once(self) -> Self {
        Self { retry: Retry::Now, ..self }
    }

    /// What happened, and what to do, in one line.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Whether to try again.
    pub fn retry(&self) -> Retry {
        self.retry
    }

    /// When to come back, if the peer said.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for ConnectError {}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        Self::later(error.to_string())
    }
}
