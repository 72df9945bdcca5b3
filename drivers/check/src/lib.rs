//! Explores every interleaving of what may happen to a few machines, as far as the budget goes, and finds a shortest
//! way to whatever goes wrong.
//!
//! A [`Model`] says where it starts, what can happen in a state and what that leads to. [`explore`] visits its states
//! breadth first, checks each, and lets a run without faults go on from each to see that it ends well: so laws that are
//! broken, deadlocks, livelocks and panics all come out as a [`Violation`] with a path that a person can read.
//!
//! The [`catalogue`] has models of the shipped [`Session`](antiphon::Session) and [`Replica`](antiphon::Replica): small
//! [`Network`]s of them, in which frames are lost, doubled, overtaken and damaged, links are cut or go dead, processes
//! are killed, disks fail and lose power, each at every moment. The command of this crate explores them:
//!
//! ```text
//! cargo run --release -p antiphon-check -- [--model sessions|datagram|pair|chain] [--states N] [--json]
//! ```
//!
//! # What is taken for the same
//!
//! Two states are one if their 128-bit digests are the same: of n states, two different ones are taken for the same
//! with a probability of about n² / 2^129, which is 10^-26 for a million. The digests are those of the machines
//! ([`state_digest`](antiphon::digest::state_digest)), which have counters and instants in them. So states that differ
//! in nothing else are told apart, and a scope is finite because of what is counted in it: how often something goes
//! wrong, and how often a timer goes off meanwhile.
//!
//! A node's clock stands still until its own timer goes off, and then stands at that timer's deadline. What a moment is
//! to one node it need not be to another: they may be slow, and their clocks apart. What happens between two deadlines
//! is not told apart.
//!
//! # A model of one's own
//!
//! Here a counter that two hands count up, each by reading it first and writing it later:
//!
//! ```
//! use antiphon::digest::state_digest;
//! use antiphon_check::{Broken, Limits, Model, explore};
//!
//! struct Counter;
//!
//! #[derive(Clone, Hash)]
//! struct State {
//!     count: u8,
//!     /// What each hand has read, and whether it is done.
//!     hands: [(Option<u8>, bool); 2],
//! }
//!
//! impl Model for Counter {
//!     type State = State;
//!     type Action = usize;
//!
//!     fn initial(&self) -> State {
//!         State { count: 0, hands: [(None, false); 2] }
//!     }
//!
//!     fn digest(&self, state: &State) -> u128 {
//!         state_digest(state)
//!     }
//!
//!     fn actions(&self, state: &State) -> Vec<usize> {
//!         (0..2).filter(|hand| !state.hands[*hand].1).collect()
//!     }
//!
//!     fn step(&self, state: &State, hand: &usize) -> Result<State, Broken> {
//!         let mut next = state.clone();
//!         match state.hands[*hand].0 {
//!             None => next.hands[*hand].0 = Some(state.count),
//!             Some(read) => (next.count, next.hands[*hand].1) = (read + 1, true),
//!         }
//!         Ok(next)
//!     }
//!
//!     fn describe(&self, state: &State, hand: &usize) -> String {
//!         let what = if state.hands[*hand].0.is_none() { "reads" } else { "writes" };
//!         format!("hand {hand} {what}")
//!     }
//!
//!     fn check(&self, state: &State) -> Result<(), Broken> {
//!         let done = state.hands.iter().filter(|(_, done)| *done).count();
//!         let counted = usize::from(state.count) == done;
//!         if counted { Ok(()) } else { Err(Broken::new("nothing is counted in vain", format!("{done} times"))) }
//!     }
//! }
//!
//! let violation = explore(&Counter, &Limits::default(), |_| {}).unwrap_err();
//! assert_eq!(violation.path, ["hand 0 reads", "hand 1 reads", "hand 0 writes", "hand 1 writes"]);
//! ```
//!
//! A network of one's own nodes is a [`Network`] of a type that implements [`Node`](network::Node), under the same laws.

mod catalogue;
mod disk;
mod explore;
mod host;
mod model;
pub mod network;
mod participant;
mod seen;

pub use catalogue::{Case, catalogue};
pub use disk::{Disk, Refused};
pub use explore::{Limits, Report, Violation, explore};
pub use host::Host;
pub use model::{Broken, Fair, Model};
pub use network::{Network, Scope};
pub use participant::Participant;
