//! What the fuzz target of sessions is made of: two sessions with hosts, the steps that an input stands for, and the laws
//! that hold after each of them.

#![forbid(unsafe_code)]

mod host;
mod input;
mod invention;
mod laws;
mod run;
mod steps;

pub use run::Run;
