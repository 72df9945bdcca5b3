//! Drivers for [antiphon] that need no machine beneath them.
//!
//! - [`storage`] is a simulated disk that survives what a real one survives and loses what a real one loses.
//! - [`pair`] lets two machines hear each other.

pub mod pair;
pub mod storage;

mod document;

pub use pair::{Pair, Peer};
pub use storage::{CrashPoint, Disk, Held, MemoryStorage, StorageError};
