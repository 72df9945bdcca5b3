//! antiphon over WebSockets: a [`Client`] for [`Node::connect`](antiphon_node::Node::connect), and a [`Server`] that lets
//! connections into a node.
//!
//! One binary message is one frame. What the transport could do besides (text, pings, compression) is not used: liveness
//! is the session's own.

mod client;
mod handshake;
mod limit;
mod pattern;
mod roots;
mod server;
mod socket;
mod stream;

pub use async_tungstenite::tungstenite::handshake::derive_accept_key as accept_key;
pub use async_tungstenite::tungstenite::http;
pub use client::{BadAddress, Client};
pub use handshake::{Refusal, UpgradeRequest};
pub use pattern::{BadPattern, Pattern};
pub use roots::{BadRoots, Roots};
pub use server::{Listener, Server, ServerConfig};
pub use socket::{ByteStream, Socket, SocketConfig, SocketReceiver, SocketSender};
pub use stream::{Stream, Tcp};
