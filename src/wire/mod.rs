//! The wire: messages to frames and back, one message a frame.
//!
//! Decoding never panics, allocates at most in proportion to the frame, and accepts one encoding of each message only:
//! `encode(decode(frame)) == frame`.

pub mod changes;
pub mod control;
pub mod datagram;
pub mod varint;

use alloc::vec::Vec;
use core::fmt;

use bytes::{Buf, Bytes};
use serde::{Deserialize, Serialize};

pub use changes::{Changes, Content, Packed, Run};
pub use control::*;
pub use datagram::{TRAILER_BYTES, Tag};
use varint::{put_varint, take_varint};

/// Why a frame is no message.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Malformed {
    /// It ends too early, or a length or count says more than there is.
    Truncated,
    /// Something follows its end.
    Trailing,
    /// A varint is longer than needed or above its range.
    Varint,
    /// The kind is unknown, and not optional.
    Kind,
    /// Values that can't stand together.
    Order,
    /// A control message that postcard can't read, or that was written in another way than ours.
    Control,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "the frame ends too early",
            Self::Trailing => "the frame goes on after its message",
            Self::Varint => "a number is overlong or out of range",
            Self::Kind => "the kind of message is unknown",
            Self::Order => "values contradict each other",
            Self::Control => "a control message is not in its canonical form",
        })
    }
}

impl core::error::Error for Malformed {}

/// Kinds from here to 0x7f are optional: who does not know one skips the frame.
pub const OPTIONAL_KINDS: u8 = 0x40;

macro_rules! messages {
    ($($kind:literal $name:ident($body:ty) $doc:literal;)*) => {
        /// One message.
        #[derive(Clone, Debug, Eq, Hash, PartialEq)]
        pub enum Message {
            $(#[doc = $doc] $name($body),)*
            /// A range of ops: kinds 0x10 (live), 0x11 (bulk) and 0x12 (part), with flags.
            Changes(Changes),
            /// A control message on a datagram, counted, kept and repeated until it is confirmed: kind 0x13.
            Reliable(u64, Bytes),
            /// An optional message that this version does not know.
            Unknown(u8, Bytes),
        }

        impl Message {
            /// Reads one frame.
            ///
            /// # Errors
            /// If the frame is not exactly one message in its one encoding.
            pub fn decode(frame: &Bytes) -> Result<Self, Malformed> {
                Self::from_frame(frame.clone())
            }

            /// The same, for who does not need the frame any longer: bodies are slices of it.
            ///
            /// # Errors
            /// Those of [`decode`](Self::decode).
            pub fn from_frame(mut bytes: Bytes) -> Result<Self, Malformed> {
                let kind = bytes.try_get_u8().map_err(|_| Malformed::Truncated)?;
                match kind {
                    $($kind => control_decode::<$body>(&bytes).map(Self::$name),)*
                    RELIABLE => Ok(Self::Reliable(take_varint(&mut bytes)?, bytes)),
                    OPTIONAL_KINDS..=0x7f => Ok(Self::Unknown(kind, bytes)),
                    _ => Changes::decode(kind, bytes).map(Self::Changes),
                }
            }

            /// The frame of this message.
            pub fn encode(&self) -> Bytes {
                let mut out = Vec::new();
                match self {
                    $(Self::$name(body) => {
                        out.push($kind);
                        control_encode(&mut out, body);
                    })*
                    Self::Reliable(number, inner) => {
                        out.push(RELIABLE);
                        put_varint(&mut out, *number);
                        out.extend_from_slice(inner);
                    }
                    Self::Changes(changes) => changes.encode(&mut out),
                    Self::Unknown(kind, body) => {
                        out.push(*kind);
                        out.extend_from_slice(body);
                    }
                }
                out.into()
            }

            /// The message's name, for traces and logs.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$name(_) => stringify!($name),)*
                    Self::Changes(_) => "Changes",
                    Self::Reliable(..) => "Reliable",
                    Self::Unknown(..) => "Unknown",
                }
            }
        }
    };
}

const RELIABLE: u8 = 0x13;

messages! {
    0x01 Hello(Hello) "Who I am and what I take. Frozen for ever.";
    0x02 Welcome(Welcome) "Your Hello is accepted.";
    0x03 Refuse(Farewell) "Your Hello is not accepted. Frozen for ever.";
    0x04 Open(Open) "I have this document open.";
    0x05 Denied(End) "I do not open this document for you.";
    0x06 Close(End) "I no longer have this document open.";
    0x07 Heads(HeadsPart) "What I hold, author by author.";
    0x08 Snapshot(SnapshotPart) "What stands for the entries below my horizon.";
    0x09 Author(Announce) "What an author's number stands for.";
    0x0a Ack(Ack) "How far I am with your log.";
    0x0b Rewind(Rewind) "What I miss of your log.";
    0x0c Ping(Ping) "Are you there?";
    0x0d Pong(Pong) "I am.";
    0x0e Credit(Credit) "How much may be outstanding on the link.";
    0x0f Goodbye(Farewell) "The session ends. Frozen for ever.";
    0x14 Resume(Resume) "Where I start in my log.";
    0x15 Fork(Fork) "Our histories differ.";
    0x16 Confirm(Confirm) "Which Reliable messages I have.";
    0x17 ImmediateAck(ImmediateAck) "Somebody here waits for your acknowledgement.";
    0x18 SnapshotWanted(SnapshotWanted) "Send me your snapshot from here on.";
    0x40 Presence(Presence) "What an app tells others now.";
}

/// All Reliable messages below `next` have arrived.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Confirm {
    /// The first number that is missing.
    pub next: u64,
}

fn control_decode<T: Serialize + for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<T, Malformed> {
    let (value, rest) = postcard::take_from_bytes::<T>(bytes).map_err(|_| Malformed::Control)?;
    if !rest.is_empty() {
        return Err(Malformed::Trailing);
    }
    // postcard reads overlong numbers; writing the value again shows them.
    let mut canonical = Vec::with_capacity(bytes.len());
    control_encode(&mut canonical, &value);
    if canonical == bytes { Ok(value) } else { Err(Malformed::Control) }
}

fn control_encode<T: Serialize>(out: &mut Vec<u8>, value: &T) {
    struct Append<'a>(&'a mut Vec<u8>);

    impl Extend<u8> for Append<'_> {
        fn extend<I: IntoIterator<Item = u8>>(&mut self, bytes: I) {
            self.0.extend(bytes);
        }
    }

    let written = postcard::to_extend(value, Append(out));
    debug_assert!(written.is_ok(), "control messages have nothing that postcard can't write");
}
