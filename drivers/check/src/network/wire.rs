//! What is between two nodes.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use antiphon::digest::state_digest;
use antiphon::session::Transport;
use antiphon::wire::{Message, TRAILER_BYTES};
use bytes::Bytes;

/// A link as it is now. The two ends are its sides, 0 and 1.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Wire {
    /// Whether each side has a session on it.
    pub(super) open: [bool; 2],
    /// What is sent is lost, and both sides are about to notice (reliable transports).
    pub(super) broken: bool,
    /// What is sent is lost, and nobody is told.
    pub(super) hung: bool,
    /// What is on its way to each side.
    pub(super) frames: [VecDeque<Frame>; 2],
}

/// A frame on its way, with a datagram's trailer.
#[derive(Clone, Debug)]
pub(super) struct Frame(Arc<(u128, Bytes)>);

impl Hash for Frame {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.0.hash(state);
    }
}

impl Frame {
    pub(super) fn new(bytes: Bytes) -> Self {
        Self(Arc::new((state_digest(&bytes), bytes)))
    }

    pub(super) fn bytes(&self) -> &Bytes {
        &self.0.1
    }

    /// The last byte before a datagram's trailer with a bit flipped: most often that of an op's body.
    pub(super) fn damaged(&self) -> Bytes {
        let mut bytes = self.bytes().to_vec();
        if let Some(byte) = bytes.len().checked_sub(TRAILER_BYTES + 1).and_then(|index| bytes.get_mut(index)) {
            *byte ^= 1;
        }
        bytes.into()
    }

    /// The message; of one that travels in the reliable stream of a datagram link the one inside.
    pub(super) fn message(&self, transport: Transport) -> Option<Message> {
        let bytes = self.bytes();
        let frame = match transport {
            Transport::Reliable => bytes.clone(),
            Transport::Datagram { .. } => bytes.slice(..bytes.len().checked_sub(TRAILER_BYTES)?),
        };
        match Message::decode(&frame).ok()? {
            Message::Reliable(_, inner) => Message::decode(&inner).ok(),
            message => Some(message),
        }
    }

    pub(super) fn describe(&self, transport: Transport) -> String {
        let message = self.message(transport);
        message.map_or_else(|| String::from("something that is no message"), |message| format!("{message:?}"))
    }
}

impl Wire {
    /// What is under way is lost.
    pub(super) fn lose_all(&mut self) {
        self.frames = Default::default();
    }

    /// Whether a frame with ops can be skipped on its way to `side`: it is next, and others come behind it.
    pub(super) fn can_skip(&self, side: usize, transport: Transport) -> bool {
        let has_ops = |frame: &Frame| matches!(frame.message(transport), Some(Message::Changes(_)));
        let mut frames = self.frames[side].iter();
        frames.next().is_some_and(has_ops) && frames.any(has_ops)
    }
}
