//! antiphon
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
pub mod storage;
pub mod time;
pub mod timeline;
pub mod wire;

pub use machine::Machine;
pub use replica::Replica;
pub use session::Session;
pub use time::Instant;
