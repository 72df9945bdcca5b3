//! The world around antiphon, simulated: each part is a pure [`Machine`](antiphon::Machine) that is fed time and a seed,
//! so that a whole run, faults included, is the same on every machine and can be replayed from its inputs alone.
//!
//! - [`link`] is one direction of a network path, with latency, loss, duplication, reordering, corruption and cuts.
//! - [`picture`] draws a run as a page to look at.
//! - [`stores`] is what stands on the nodes where they are stores, with laws of its own.
//! - [`world`] runs nodes on simulated disks over such links, in virtual time.

pub mod campaign;
pub mod clock;
pub mod coverage;
pub mod laws;
pub mod link;
pub mod node;
pub mod picture;
pub mod plan;
pub mod replica;
pub mod run;
pub mod stores;
mod text;
pub mod world;

pub use clock::Clock;
pub use link::{Faults, Link};
pub use node::Node;
pub use world::World;
