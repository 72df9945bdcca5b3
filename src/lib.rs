//! antiphon
#![no_std]

extern crate alloc;

pub mod digest;
pub mod heads;
pub mod machine;
pub mod op;
pub mod retry;
pub mod rng;
pub mod time;

pub use machine::Machine;
pub use time::Instant;
