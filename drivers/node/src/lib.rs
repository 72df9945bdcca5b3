//! Runs a replica in async programs: its storage on a thread of its own, its timers, and links over any transport.
//!
//! [`Node`] is the handle: documents are opened and appended to, links connected and accepted, and things waited for.
//! [`Driver`] is a future that does the work; spawn it where you like: on smol, tokio, or a thread that waits for it.
//! [`Transport`] is what a link runs over; the crate `antiphon-websocket` has the one that most want, and the
//! [guide] writes another from scratch.

mod config;
mod dial;
mod disk;
mod driver;
mod engine;
mod error;
mod events;
mod follow;
mod functions;
mod links;
mod node;
mod progress;
mod transport;

pub use antiphon_recorder::Ring;
pub use config::{Config, LinkOptions, RedialPolicy};
pub use dial::Link;
pub use driver::Driver;
pub use error::{Error, LinkEnd};
pub use events::{Notice, Subscription};
pub use follow::{Follow, Followed};
pub use functions::{FunctionReceiver, FunctionSender, Functions};
pub use node::Node;
pub use progress::LinkState;
pub use transport::{ConnectError, Connector, FrameReceiver, FrameSender, Transport};

#[doc = include_str!("../docs/guide.md")]
pub mod guide {}
