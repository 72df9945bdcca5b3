//! What machines did, as a picture for people.
//!
//! A [`Picture`] is a space-time diagram as a value: a lane for each machine (or link), frames between them with what
//! became of each copy, marks, and spans of time in which something was different. Its [page](Picture::page) is one
//! file that needs nothing else: no network, no fonts, no scripts but its own. Whatever was in the run, bodies and names
//! from strangers among it, is data there and never markup.
//!
//! ```
//! use antiphon::Instant;
//! use antiphon_report::{Copy, Fate, Frame, Lane, Picture};
//! use antiphon_words::frame_words;
//!
//! let ping = antiphon::wire::Message::Ping(antiphon::wire::Ping { token: 7, blocked: false }).encode();
//! let mut picture = Picture::new("two machines");
//! picture.lanes = ["left", "right"].map(|name| Lane { name: name.to_owned(), note: String::new() }).into();
//! picture.frames.push(Frame {
//!     from: 0,
//!     to: 1,
//!     sent: Instant::ZERO,
//!     words: frame_words(&ping, false),
//!     document: None,
//!     copies: vec![Copy { at: Instant::from_millis(20), fate: Fate::Arrived, held_back: false, damaged: false }],
//! });
//! assert!(picture.page().starts_with("<!doctype html>"));
//! ```
//!
//! The producers of pictures are elsewhere: whoever runs machines knows what happened.

mod page;
mod picture;

pub use picture::{Broken, Copy, Fate, Frame, Lane, Mark, Picture, Place, Span, Trouble};
