//! What the fuzz targets are made of: two sessions with hosts, a replica between two others, plans for the simulator,
//! segments around the records of a trace; the steps that an input stands for, and what must hold after each of them.

#![forbid(unsafe_code)]

mod draw;
mod host;
mod input;
mod invention;
mod laws;
mod play;
mod run;
mod steps;
mod trace;

pub use draw::drawn;
pub use input::Reader;
pub use play::Play;
pub use run::Run;
pub use trace::{framed, session_setup, setup, unframed};
