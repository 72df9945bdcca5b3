//! Snapshots, where what the peer lacks exists only in one: offered, asked for piece by piece, and handed to the host.
//!
//! The end that takes one asks for so many bytes at a time, and for the next when it has room: so neither end holds more
//! than that, and a transfer that was cut off goes on where it was.

use alloc::vec::Vec;

use bytes::Bytes;

use super::{Event, Misuse, Output, Session};
use crate::codes::Code;
use crate::snapshot::SnapshotId;
use crate::wire::Message;
use crate::wire::control::{SnapshotPart, SnapshotWanted};

/// What is on its way to the peer.
#[derive(Clone, Debug, Hash)]
pub(super) enum Offered {
    /// Nothing: it has not asked.
    Idle,
    /// The host reads what was asked for, from here to there.
    Reading { offset: u64, to: u64 },
    /// These bytes are to be sent, and then what follows them to there.
    Sending { offset: u64, bytes: Bytes, to: u64 },
}

/// A snapshot of the peer's.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) struct Offer {
    id: SnapshotId,
    /// The bytes that were asked for and are not here.
    from: u64,
    to: u64,
}

impl Session {
    // ---------------------------------------------------------------------------------------- ours

    /// The peer lacks what exists only in the snapshot.
    pub(super) fn offer_snapshot(&mut self, number: u32) {
        let Some(document) = self.documents.get_mut(&number) else { return };
        let Some(id) = document.snapshot() else {
            return self.close_for(number, Code::BELOW_HORIZON, "what the peer lacks exists only in a snapshot");
        };
        document.offered = Some(Offered::Idle);
        self.link.send_control(&Message::Snapshot(SnapshotPart {
            document: number,
            id,
            offset: 0,
            bytes: Bytes::new(),
        }));
    }

    pub(super) fn on_snapshot_wanted(&mut self, wanted: SnapshotWanted) {
        let Some(number) = self.by_peer.get(wanted.document).copied() else { return };
        let Some(document) = self.documents.get_mut(&number) else { return };
        let bytes = document.snapshot().map_or(0, |id| id.bytes);
        if !matches!(document.offered, Some(Offered::Idle)) || wanted.offset >= bytes || wanted.bytes == 0 {
            return self.unexpected("a snapshot was asked for that was not offered");
        }
        self.read_on(number, wanted.offset, bytes.min(wanted.offset + u64::from(wanted.bytes)));
    }

    /// Asks the host for what the peer has asked for: no more at a time than this end would take of ops.
    fn read_on(&mut self, number: u32, offset: u64, to: u64) {
        let Some(document) = self.documents.get_mut(&number) else { return };
        let Some(id) = document.snapshot() else { return };
        document.offered = Some(Offered::Reading { offset, to });
        let max = u64::from(self.config.limits.window).min(to - offset);
        self.link.outputs.push_back(Output::ReadSnapshot { number, id, offset, max });
    }

    /// The host has read what the peer asked for.
    pub(super) fn snapshot_read(&mut self, number: u32, bytes: Bytes) -> Result<(), Misuse> {
        let document = self.documents.get_mut(&number).ok_or(Misuse::NotOpen(number))?;
        if !document.is_open() {
            return Ok(()); // closed meanwhile
        }
        let Some(Offered::Reading { offset, to }) = document.offered else { return Err(Misuse::NotAsked) };
        if bytes.is_empty() || bytes.len() as u64 > to - offset {
            self.close_for(number, Code::STORAGE_FAILED, "the snapshot is not to be read");
            return Ok(());
        }
        document.offered = Some(Offered::Sending { offset, bytes, to });
        self.snapshots_out.insert(number);
        Ok(())
    }

    /// Sends as much of our snapshots as may go now.
    pub(super) fn pump_snapshots(&mut self) {
        const HEAD_OF_MESSAGE: usize = 72;
        let Some(frame_bytes) = self.frame_bytes() else { return };
        let numbers: Vec<_> = self.snapshots_out.iter().copied().collect();
        for number in numbers {
            while !self.link.control_is_full() && self.link.room >= frame_bytes as u64 {
                let Some(document) = self.documents.get_mut(&number) else { break };
                let Some(id) = document.snapshot() else { break };
                let Some(Offered::Sending { offset, bytes, to }) = &mut document.offered else { break };
                let part = bytes.split_to(bytes.len().min(frame_bytes - HEAD_OF_MESSAGE));
                let message = SnapshotPart { document: number, id, offset: *offset, bytes: part };
                *offset += message.bytes.len() as u64;
                let (offset, to, sent) = (*offset, *to, bytes.is_empty());
                if sent {
                    document.offered = Some(Offered::Idle);
                }
                self.link.send_control(&Message::Snapshot(message));
                if sent && offset < to {
                    self.read_on(number, offset, to);
                }
            }
            let offered = self.documents.get(&number).and_then(|document| document.offered.as_ref());
            if !matches!(offered, Some(Offered::Sending { .. })) {
                self.snapshots_out.remove(&number);
            }
        }
    }

    // ---------------------------------------------------------------------------------------- the peer's

    /// Whether the peer offers a snapshot of a document.
    pub(crate) fn is_offered_snapshot(&self, number: u32) -> bool {
        self.documents.get(&number).is_some_and(|document| document.offer.is_some())
    }

    pub(super) fn on_snapshot(&mut self, part: SnapshotPart) {
        let Some(number) = self.by_peer.get(part.document).copied() else { return };
        let Some(document) = self.documents.get_mut(&number) else { return };
        let SnapshotPart { id, offset, bytes, .. } = part;
        match &mut document.offer {
            None if bytes.is_empty() && offset == 0 && document.receiving.taken.is_none() => {
                document.offer = Some(Offer { id, from: 0, to: 0 }.into());
                self.event(Event::SnapshotOffered { number, snapshot: id });
            }
            Some(offer)
                if offer.id == id
                    && offer.from == offset
                    && bytes.len() as u64 <= offer.to - offset
                    && !bytes.is_empty() =>
            {
                offer.from += bytes.len() as u64;
                self.link.outputs.push_back(Output::TakeSnapshot { number, offset, bytes });
            }
            _ => self.unexpected("a snapshot came that was not asked for"),
        }
    }

    /// The host has room for more of the snapshot that was offered.
    pub(super) fn want_snapshot(&mut self, number: u32, offset: u64, bytes: u32) -> Result<(), Misuse> {
        let document = self.documents.get_mut(&number).ok_or(Misuse::NotOpen(number))?;
        if !document.is_open() {
            return Ok(()); // closed meanwhile
        }
        let offer = document.offer.as_deref_mut().filter(|offer| offer.from == offer.to).ok_or(Misuse::NotAsked)?;
        (offer.from, offer.to) = (offset, (offset + u64::from(bytes)).min(offer.id.bytes));
        if offer.from >= offer.to {
            return Err(Misuse::Regressed);
        }
        let bytes = (offer.to - offer.from) as u32; // no more than was asked for
        self.link.send_control(&Message::SnapshotWanted(SnapshotWanted { document: number, offset, bytes }));
        Ok(())
    }
}
