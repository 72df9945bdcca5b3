//! What is between two nodes.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use antiphon::digest::state_digest;
use antiphon::session::Transport;
use antiphon::wire::{Message, Point, TRAILER_BYTES};
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
    /// What was said of acknowledgements at each side, where apps wait for them.
    pub(super) acknowledging: [Acknowledging; 2],
}

/// What a side was asked to acknowledge, and what it said.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Acknowledging {
    /// The peer's log below this is to be acknowledged as soon as it is durable.
    pub(super) awaited: u64,
    /// What was said last to be durable.
    pub(super) told: u64,
    /// What was said last when it was asked: taken, durable.
    pub(super) answered: Option<(Point, u64)>,
    /// Whether it is being asked just now.
    pub(super) asked: bool,
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

    pub(super) fn message(&self, transport: Transport) -> Option<Message> {
        message_in(self.bytes(), transport)
    }

    /// Up to where it asks for an acknowledgement.
    pub(super) fn asks(&self, transport: Transport) -> Option<u64> {
        match self.message(transport)? {
            Message::ImmediateAck(wanted) => Some(wanted.to),
            _ => None,
        }
    }

    pub(super) fn describe(&self, transport: Transport) -> String {
        let message = self.message(transport);
        message.map_or_else(|| String::from("something that is no message"), |message| format!("{message:?}"))
    }
}

impl Wire {
    /// Whether what is sent arrives, and both sides know of each other.
    pub(super) fn is_whole(&self) -> bool {
        self.open == [true; 2] && !self.broken && !self.hung
    }

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

/// The message in a frame; of one that travels in the reliable stream of a datagram link the one inside.
pub(crate) fn message_in(frame: &Bytes, transport: Transport) -> Option<Message> {
    let frame = match transport {
        Transport::Reliable => frame.clone(),
        Transport::Datagram { .. } => frame.slice(..frame.len().checked_sub(TRAILER_BYTES)?),
    };
    match Message::decode(&frame).ok()? {
        Message::Reliable(_, inner) => Message::decode(&inner).ok(),
        message => Some(message),
    }
}
