//! What machines say to each other and to their apps, in words: the one place where frames and events become text, for
//! transcripts and pictures.
//!
//! ```
//! use antiphon::wire::{Message, Ping};
//! use antiphon_words::{Family, frame_words};
//!
//! let ping = Message::Ping(Ping { token: 7, blocked: true }).encode();
//! let words = frame_words(&ping, false);
//! assert_eq!((words.kind, words.family), ("Ping", Family::Link));
//! assert_eq!(words.fields[..2], [("token", "7".to_owned()), ("blocked", "waits for credit".to_owned())]);
//! ```

mod event;
mod frame;

pub use event::{EventWords, Sign, event_words, input_words, session_event_words};
pub use frame::{Family, Field, FrameWords, Named, access, body_words, bytes_preview, frame_words, with_reason};
