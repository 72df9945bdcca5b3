//! The way out: messages to frames, what a datagram needs besides, and the reliable order of control messages there.

use alloc::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::{BYTES_BEFORE_WELCOME, Output, Stats, Transport};
use crate::wire::{Confirm, Message, TRAILER_BYTES, Tag};

/// How many control messages may be unconfirmed on a datagram transport, and how many that came early are kept.
const CONTROL_WINDOW: usize = 64;
/// Bytes sent before the peer's Welcome beyond which control messages wait for it: half of what the peer takes, for
/// on datagrams there are repetitions.
const BYTES_UNASKED: u64 = BYTES_BEFORE_WELCOME / 2;

/// The outgoing side of a link.
#[derive(Clone, Debug, Hash)]
pub(super) struct Link {
    pub(super) outputs: VecDeque<Output>,
    pub(super) room: u64,
    pub(super) stats: Stats,
    transport: Transport,
    /// What seals our frames; none before the peer's nonce is known.
    tag: Option<Tag>,
    /// The turn of our changes, and whether a Close went out since it began.
    turn: (u32, bool),
    /// The peer's Welcome is here.
    welcome: bool,
    control: Control,
}

impl Link {
    pub(super) fn new(transport: Transport) -> Self {
        let (outputs, stats, control) = (VecDeque::new(), Stats::default(), Control::default());
        Self { outputs, room: u64::MAX, stats, transport, tag: None, turn: (0, false), welcome: false, control }
    }

    pub(super) fn is_datagram(&self) -> bool {
        matches!(self.transport, Transport::Datagram { .. })
    }

    pub(super) fn set_tag(&mut self, tag: Tag) {
        self.tag = Some(tag);
    }

    /// The peer takes whatever the limits allow from now on.
    pub(super) fn welcomed(&mut self) {
        self.welcome = true;
        self.pump_control();
    }

    /// Bytes of the largest message that the transport carries.
    pub(super) fn message_bytes_max(&self) -> usize {
        match self.transport {
            Transport::Reliable => usize::MAX,
            Transport::Datagram { mtu } => usize::from(mtu).saturating_sub(TRAILER_BYTES),
        }
    }

    /// Hello: sealed with no tag, since it is what tells the nonces.
    pub(super) fn send_hello(&mut self, frame: Bytes) {
        let frame = if self.is_datagram() { Tag::NONE.seal(&frame) } else { frame };
        self.push(frame);
    }

    /// The host closes or opens a document: what it was to be told of the opening before means nothing any more.
    pub(super) fn forget_outputs(&mut self, number: u32) {
        self.outputs.retain(|output| output.number() != Some(number));
    }

    /// A message that is never repeated by itself.
    pub(super) fn send(&mut self, message: &Message) {
        self.send_frame(message.encode());
    }

    /// Changes, of which late ones are not to be taken for those of a later opening.
    pub(super) fn send_changes(&mut self, frame: Bytes) {
        self.seal_and_push(frame, self.turn.0);
    }

    fn send_frame(&mut self, frame: Bytes) {
        self.seal_and_push(frame, 0);
    }

    fn seal_and_push(&mut self, frame: Bytes, turn: u32) {
        let frame = match (self.is_datagram(), self.tag) {
            (false, _) => frame,
            (true, Some(tag)) => tag.turned(turn).seal(&frame),
            (true, None) => return, // the peer could not tell that it is ours
        };
        self.push(frame);
    }

    fn push(&mut self, frame: Bytes) {
        self.room = self.room.saturating_sub(frame.len() as u64);
        self.stats.frames_sent += 1;
        self.stats.bytes_sent += frame.len() as u64;
        self.outputs.push_back(Output::Transmit(frame));
    }

    /// A message that arrives once and in order, whatever the transport does.
    pub(super) fn send_control(&mut self, message: &Message) {
        turn(&mut self.turn, message);
        let inner = message.encode();
        if self.is_datagram() || self.control_waits() || self.is_early(&inner) {
            self.control.queue.push_back(inner);
            self.pump_control();
        } else {
            self.send_frame(inner); // a link that is idle has no queue
        }
    }

    /// Whether the peer might not take this yet.
    fn is_early(&self, inner: &Bytes) -> bool {
        !self.welcome && self.stats.bytes_sent + inner.len() as u64 > BYTES_UNASKED
    }

    /// Whether messages of which there may be many should wait.
    pub(super) fn control_is_full(&self) -> bool {
        self.control.queue.len() >= CONTROL_WINDOW
    }

    /// Whether control messages wait for the peer's confirmation of others before they can go.
    pub(super) fn control_waits(&self) -> bool {
        !self.control.queue.is_empty()
    }

    /// Control messages start anew, with another peer.
    pub(super) fn forget_control(&mut self) {
        self.control = Control::default();
        self.turn = (0, false);
    }

    /// Nothing happens for a while: what is empty need not keep its room, for idle sessions are many.
    pub(super) fn rest(&mut self) {
        self.outputs.shrink_to_fit();
        self.control.queue.shrink_to_fit();
        self.control.unconfirmed.shrink_to_fit();
        if self.control.early.is_empty() {
            self.control.early = BTreeMap::new(); // an empty tree keeps its first node
        }
    }

    /// Whether control messages wait for confirmation.
    pub(super) fn awaits_confirmation(&self) -> bool {
        !self.control.unconfirmed.is_empty()
    }

    pub(super) fn pump_control(&mut self) {
        let datagram = self.is_datagram();
        while let Some(inner) = self.control.queue.front() {
            let full = datagram && (self.tag.is_none() || self.control.unconfirmed.len() >= CONTROL_WINDOW);
            if full || self.is_early(inner) {
                return;
            }
            let Some(inner) = self.control.queue.pop_front() else { return };
            if datagram {
                let message = Message::Reliable(self.control.next_out, inner);
                self.control.next_out += 1;
                self.control.unconfirmed.push_back(message.encode());
                self.send(&message);
            } else {
                self.send_frame(inner);
            }
        }
    }

    /// Sends the oldest unconfirmed control messages again.
    pub(super) fn repeat_control(&mut self, count: usize) {
        for index in 0..count.min(self.control.unconfirmed.len()) {
            self.stats.frames_repeated += 1;
            self.send_frame(self.control.unconfirmed[index].clone());
        }
    }

    /// The peer has all control messages below `next`. False if it can't have.
    pub(super) fn confirmed(&mut self, next: u64) -> bool {
        let control = &mut self.control;
        let first = control.next_out - control.unconfirmed.len() as u64;
        if next > control.next_out {
            return false;
        }
        if next > first {
            control.unconfirmed.drain(..(next - first) as usize);
            control.same_confirms = 0;
            self.pump_control();
        } else if next == first && !control.unconfirmed.is_empty() {
            // Each message that comes early is answered: a third such answer means that the first one is lost.
            control.same_confirms += 1;
            if control.same_confirms == 3 {
                self.repeat_control(1);
            }
        }
        true
    }

    /// Takes a numbered control message; what can be read now comes out of [`next_control`](Self::next_control).
    pub(super) fn receive_control(&mut self, number: u64, inner: Bytes) {
        let control = &mut self.control;
        if number >= control.next_in && number - control.next_in < CONTROL_WINDOW as u64 {
            control.early.insert(number, inner);
        }
        let mut next = control.next_in;
        while control.early.contains_key(&next) {
            next += 1;
        }
        self.send(&Message::Confirm(Confirm { next }));
    }

    pub(super) fn next_control(&mut self) -> Option<Bytes> {
        let inner = self.control.early.remove(&self.control.next_in)?;
        self.control.next_in += 1;
        Some(inner)
    }
}

/// Takes the next turn with the first Open after a Close. Control messages arrive in order, so both ends count the same.
pub(super) fn turn((turn, closed): &mut (u32, bool), message: &Message) {
    match message {
        Message::Close(_) => *closed = true,
        Message::Open(_) if core::mem::take(closed) => *turn = turn.wrapping_add(1),
        _ => {}
    }
}

/// Control messages; on a datagram transport they are numbered from 0 in each direction.
#[derive(Clone, Debug, Default, Hash)]
struct Control {
    queue: VecDeque<Bytes>,
    next_out: u64,
    unconfirmed: VecDeque<Bytes>,
    same_confirms: u32,
    next_in: u64,
    early: BTreeMap<u64, Bytes>,
}
