//! Stores that are in step by themselves.
//!
//! A [`SharedStore`] is a [`Store`](antiphon::store::Store) for many parts of a program: they read it, write it, listen to
//! it. A [`Synchronizer`] keeps it in step with a document of a [`Node`](antiphon_node::Node), and so with the same store
//! at every peer that the node has a link with: over a WebSocket, a [hub](join) in the same process, or two
//! [functions](antiphon_node::Functions). [Using a synchronizer](guide) shows all of that.

mod compaction;
mod hub;
mod shared;
mod status;
mod synchronizer;
mod work;

pub use compaction::Compaction;
pub use hub::{Member, join};
pub use shared::{By, CorrectorId, SharedStore, Told};
pub use status::{Phase, Statistics, Status};
pub use synchronizer::{Error, Options, Synchronizer};

#[doc = include_str!("../docs/guide.md")]
pub mod guide {}
