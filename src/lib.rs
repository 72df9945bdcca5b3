//! Keeps replicas of documents in step, without IO: a pure, deterministic state machine for whatever loop you have.
//!
//! A *document* is a log of *operations* whose bodies are opaque bytes. A [`Replica`] holds documents, in a
//! [`Storage`](storage::Storage) that you bring, and keeps them in step with other replicas over links that you bring:
//! each op is delivered once, in causal order, and acknowledged when it is durable at the peer. Below it, a [`Session`]
//! is one link by itself. Both are a [`Machine`], and are driven by the same loop:
//!
//! 1. Make it: [`Storage::open`](storage::Storage::open) gives the [`Identity`](storage::Identity) of this run;
//!    [`Replica::new`] takes it, with 32 bytes of the system's entropy. There is no other source of randomness.
//! 2. Tell it what happens, with the time: [`handle`](Machine::handle). [`Input::Connected`] when a link is up,
//!    [`Input::Received`] for each frame, [`Input::Disconnected`] when the link is gone; [`Input::Open`] and
//!    [`Input::Append`] when the app does so.
//! 3. Do what it wants done: [`poll`](Machine::poll) until that is `None`. [`Output::Transmit`] is a frame to send;
//!    [`Output::Storage`] is for [`execute`](storage::Storage::execute), here or on another thread, and the reply goes
//!    back as [`Input::Storage`]; [`Output::Ask`] is for you to decide; [`Output::Event`] is for the app.
//! 4. Wait for the next thing to happen, or until [`deadline`](Machine::deadline): then hand in [`Input::Timer`].
//! 5. Go on with 2.
//!
//! What ops mean is yours. If you bring no CRDT, [`store`] is one: tables and values, of which each transaction is an op.
//!
//! ```
//! use antiphon::op::DocumentId;
//! use antiphon::replica::{Config, Event, Input, Options, Output, Replica};
//! use antiphon::rng::Rng;
//! use antiphon::storage::{Continuity, Storage};
//! use antiphon::{Instant, Machine};
//! use antiphon_memory::MemoryStorage;
//!
//! let mut storage = MemoryStorage::new();
//! let mut entropy = Rng::new(1); // in earnest: from the system
//! let identity = storage.open(Continuity::Proven, &mut entropy)?;
//! let mut replica = Replica::new(Config::default(), identity, [7; 32]); // in earnest: from the system
//!
//! let document: DocumentId = "notes".parse()?;
//! let now = Instant::ZERO;
//! replica.handle(now, Input::Open { document: document.clone(), options: Options::default() })?;
//! replica.handle(now, Input::Append { document: document.clone(), bodies: vec!["hello".into()] })?;
//! let mut durable = 0;
//! while let Some(output) = replica.poll() {
//!     match output {
//!         Output::Storage { ticket, request } => {
//!             let reply = storage.execute(&request).map_err(|error| error.to_string());
//!             replica.handle(now, Input::Storage { ticket, reply })?;
//!         }
//!         Output::Event(Event::Applied { id, .. }) => durable = id.seq,
//!         _ => {} // no link, so nothing to transmit
//!     }
//! }
//! assert_eq!(durable, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Nothing in here reads a clock, draws randomness, or touches a socket, a file, a thread or a global; the list of all
//! `(now, input)` is a complete trace. What the caller does wrong is an error at the call, what a peer does wrong ends
//! its session with a [`Code`](codes::Code), and what a disk does wrong is an event. The crates `antiphon-memory`,
//! `antiphon-sim` and `antiphon-conformance` bring drivers for memory, simulated networks, and a suite for storages.
//!
//! [`Input::Append`]: replica::Input::Append
//! [`Input::Disconnected`]: replica::Input::Disconnected
//! [`Input::Open`]: replica::Input::Open
//! [`Input::Received`]: replica::Input::Received
//! [`Input::Connected`]: replica::Input::Connected
//! [`Input::Storage`]: replica::Input::Storage
//! [`Input::Timer`]: replica::Input::Timer
//! [`Output::Transmit`]: replica::Output::Transmit
//! [`Output::Storage`]: replica::Output::Storage
//! [`Output::Ask`]: replica::Output::Ask
//! [`Output::Event`]: replica::Output::Event

#![no_std]

extern crate alloc;

pub mod codes;
pub mod digest;
pub mod heads;
pub mod log;
pub mod machine;
pub mod op;
pub mod replica;
pub mod retry;
pub mod rng;
pub mod session;
mod small;
pub mod snapshot;
pub mod storage;
pub mod store;
pub mod time;
pub mod timeline;
pub mod wire;

pub use machine::Machine;
pub use replica::Replica;
pub use session::Session;
pub use time::Instant;

/// The README's code, compiled and run with the other doctests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
