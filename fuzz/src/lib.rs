//! What the fuzz targets are made of. Of sessions: two sessions with hosts, the steps that an input stands for, and the
//! laws that hold after each of them. Of traces: segments around an input's records.

#![forbid(unsafe_code)]

mod host;
mod input;
mod invention;
mod laws;
mod run;
mod steps;
mod trace;

pub use run::Run;
pub use trace::{framed, setup, unframed};
