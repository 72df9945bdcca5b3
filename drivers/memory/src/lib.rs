//! Drivers for [antiphon] that need no machine beneath them.
//!
//! - [`storage`] is a simulated disk that survives what a real one survives and loses what a real one loses.
//! - [`pair`] lets two machines hear each other, step by step.
//! - [`hub`] lets the replicas of a process hear each other, on threads and with a clock.

pub mod hub;
pub mod pair;
pub mod participant;
pub mod seat;
pub mod storage;

mod document;

pub use hub::Hub;
pub use pair::{Pair, Peer};
pub use participant::Participant;
pub use seat::{Line, Seat};
pub use storage::{CrashPoint, Disk, Held, MemoryStorage, StorageError};
