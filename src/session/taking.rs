//! The peer's log: changes taken and acknowledged, what is missing asked for again, and knowing that both are in step.

use core::time::Duration;

use super::document::Theirs;
use super::receiving::{Bounds, Taken};
use super::{Event, Output, Session, Timer};
use crate::codes::Code;
use crate::time::Instant;
use crate::wire::{Access, Ack, Announce, Changes, Credit, ImmediateAck, Level, Malformed, Message, Rewind, Skip, Tag};

/// How long frames that overtook others are waited for before what they overtook is taken for lost.
const REORDER_WAIT: Duration = Duration::from_millis(10);

/// How many acknowledgement delays a level waits for that has no acknowledgement to travel with.
const LEVEL_DELAYS: u32 = 2;

impl Session {
    pub(super) fn on_author(&mut self, author: &Announce) -> Result<(), Malformed> {
        let Some(number) = self.by_peer.get(author.document).copied() else { return Ok(()) };
        let Some(document) = self.documents.get_mut(&number) else { return Ok(()) };
        let authors_max = self.config.limits.authors;
        if !document.receiving.announce(author.number, author.author, author.base, authors_max) {
            self.end(Code::OVERSIZED, "an author was announced twice, or too many were");
            return Ok(());
        }
        self.unpark(number)
    }

    pub(super) fn on_changes(&mut self, changes: Changes, turn: u32) -> Result<(), Malformed> {
        match self.by_peer.get(changes.document).copied() {
            Some(number) if self.is_of_earlier_opening(number, turn) => {
                self.link.stats.frames_dropped += 1;
                Ok(())
            }
            Some(number) => {
                self.take(number, changes)?;
                self.unpark(number)
            }
            None => {
                // For a document that was closed here, or on datagrams one whose Open is late.
                self.link.stats.frames_dropped += 1;
                Ok(())
            }
        }
    }

    /// Whether changes of this turn were sent before the peer opened the document anew. Turns repeat: the one that is
    /// nearest to the peer's last is meant.
    fn is_of_earlier_opening(&self, number: u32, turn: u32) -> bool {
        if !self.link.is_datagram() {
            return false;
        }
        let opened = self.documents.get(&number).map_or(0, |document| document.turn);
        let behind = self.peer_turn.0.wrapping_sub(turn) % Tag::TURNS;
        behind < Tag::TURNS / 2 && behind > self.peer_turn.0.wrapping_sub(opened)
    }

    pub(super) fn unpark(&mut self, number: u32) -> Result<(), Malformed> {
        while let Some(changes) = self.documents.get_mut(&number).and_then(|document| document.receiving.unpark()) {
            let before = self.documents.get(&number).and_then(|document| document.receiving.taken);
            self.take(number, changes)?;
            if self.documents.get(&number).and_then(|document| document.receiving.taken) == before {
                break; // parked again: an author is not known yet
            }
        }
        Ok(())
    }

    pub(super) fn take(&mut self, number: u32, changes: Changes) -> Result<(), Malformed> {
        let link_left = u64::from(self.config.limits.credit).saturating_sub(self.undurable);
        let limits = self.config.limits;
        let datagram = self.link.is_datagram();
        let Some(document) = self.documents.get_mut(&number) else { return Ok(()) };
        let Some(theirs) = &document.theirs else { return Ok(()) };
        let Theirs { timeline, origin, begins, .. } = *theirs;
        if document.grant == Access::Read {
            self.close_for(number, Code::READ_ONLY, "the peer may only read this document");
            return Ok(());
        }
        let is_part = matches!(changes.content, crate::wire::Content::Part { .. });
        if is_part && self.parts_in.is_some_and(|other| other != number) {
            if !datagram {
                self.end(Code::OVERRUN, "two ops came in parts at once");
            }
            return Ok(());
        }
        let bounds = Bounds {
            begins,
            window: u64::from(limits.window),
            op: u64::from(limits.op),
            park: datagram,
            link: link_left,
        };
        let taken = document.receiving.take(changes, &bounds)?;
        self.parts_in.take_if(|part| *part == number);
        if document.receiving.is_assembling() {
            self.parts_in = Some(number);
        }
        match taken {
            Taken::Ops { from, to, mut ops, cost } => {
                ops.retain(|op| !document.sending.is_forked(op.id.author));
                self.undurable += cost;
                self.link.outputs.push_back(Output::Take { number, origin, timeline, from, to, ops });
                self.acknowledge(number);
            }
            Taken::Part | Taken::Duplicate => self.acknowledge(number),
            Taken::Early => self.on_early(number),
            // What is sent again may overlap what was taken, and then counts twice: it will come again.
            Taken::Excess if datagram => self.link.stats.frames_dropped += 1,
            Taken::Excess => self.end(Code::OVERRUN, "more was sent than the credit allows"),
            Taken::TooLarge => self.end(Code::OVERRUN, "an op is larger than the limits allow"),
        }
        Ok(())
    }

    /// A frame came before one that is missing.
    pub(super) fn on_early(&mut self, number: u32) {
        if self.link.is_datagram() {
            self.ask_missing(number, true);
            self.timers.set_earlier(Timer::Rewind, self.now + REORDER_WAIT);
        } else {
            // What came is not kept; everything from the gap on must come again.
            self.ask_again(number);
        }
    }

    pub(super) fn ask_missing(&mut self, number: u32, patient: bool) {
        let wait = self.round_trip.wait(Duration::ZERO, 0);
        let Some(document) = self.documents.get_mut(&number) else { return };
        let Some(theirs) = document.theirs.as_ref().map(|theirs| theirs.number) else { return };
        let missing = document.receiving.missing(self.now, wait, patient);
        let Some(received) = document.receiving.taken else { return };
        for (from, to) in missing {
            self.acks += 1;
            let (number, to) = (self.acks, Some(to));
            self.link.send(&Message::Rewind(Rewind { document: theirs, number, received, from, to }));
        }
    }

    pub(super) fn ask_again(&mut self, number: u32) {
        let Some(document) = self.documents.get_mut(&number) else { return };
        let (Some(theirs), Some(received)) = (&document.theirs, document.receiving.taken) else { return };
        if document.receiving.ask_once(received, self.now) {
            self.acks += 1;
            let (document, number) = (theirs.number, self.acks);
            self.link.send(&Message::Rewind(Rewind { document, number, received, from: received, to: None }));
        }
    }

    pub(super) fn on_skip(&mut self, number: u32, skip: Skip) -> Result<(), Malformed> {
        let Some(document) = self.documents.get_mut(&number) else { return Ok(()) };
        if document.theirs.as_ref().is_none_or(|theirs| theirs.number != skip.document) {
            return Ok(());
        }
        let before = document.receiving.taken;
        if document.receiving.skip(skip.from, skip.to) {
            let moved = document.receiving.taken != before;
            if moved {
                self.parts_in.take_if(|part| *part == number);
            }
            if moved || self.link.is_datagram() {
                self.acknowledge(number);
            }
            return self.unpark(number);
        }
        self.on_early(number);
        Ok(())
    }

    // ---------------------------------------------------------------------------------------- acknowledging

    /// Something is to be acknowledged: soon, or at once if the peer may wait for it.
    pub(super) fn acknowledge(&mut self, number: u32) {
        let Some(document) = self.documents.get(&number) else { return };
        let receiving = &document.receiving;
        let half = receiving.unacknowledged * 2 >= u64::from(self.config.limits.window);
        let urgent = half || receiving.is_awaited();
        self.acks_due.insert(number);
        if urgent {
            self.send_ack(number);
        } else {
            self.timers.set_earlier(Timer::Ack, self.now + self.config.ack_delay);
        }
    }

    /// A frame with ops is about to go: an acknowledgement of what was only skipped goes along. (One of ops waits for its
    /// delay, or there would be one for each op where ops go both ways.)
    pub(super) fn acknowledge_along(&mut self, number: u32) {
        let only_skipped = self.documents.get(&number).is_some_and(|document| document.receiving.unacknowledged == 0);
        if only_skipped && self.acks_due.contains(&number) {
            self.send_ack(number);
        }
    }

    /// The peer waits for an acknowledgement. One that is not due would tell it nothing new, unless the last was lost.
    pub(super) fn on_immediate_ack(&mut self, wanted: ImmediateAck) {
        let Some(number) = self.by_peer.get(wanted.document).copied() else { return };
        let Some(document) = self.documents.get_mut(&number) else { return };
        document.receiving.awaited = document.receiving.awaited.max(wanted.to);
        let may_be_lost = self.link.is_datagram();
        if may_be_lost {
            document.told_level = None;
        }
        if document.receiving.held >= wanted.to && (may_be_lost || self.acks_due.contains(&number)) {
            self.send_ack(number);
        }
    }

    /// All windows are to be stated: once a delay, however often the peer asks.
    pub(super) fn acknowledge_all(&mut self) {
        self.restate = true;
        self.timers.set_earlier(Timer::Ack, self.now + self.config.ack_delay);
    }

    /// States what more may be taken on the link: no acknowledgement would, for the document that had taken it is closed.
    pub(super) fn state_credit(&mut self) {
        self.acks += 1;
        let total = u64::from(self.config.limits.credit).saturating_sub(self.undurable);
        self.link.send(&Message::Credit(Credit { number: self.acks, total }));
    }

    pub(super) fn send_ack(&mut self, number: u32) {
        self.acks_due.remove(&number);
        if self.acks_due.is_empty() && !self.restate {
            self.timers.stop(Timer::Ack);
        }
        let Some(document) = self.documents.get_mut(&number).filter(|document| document.is_open()) else { return };
        let (Some(theirs), Some(received)) = (&document.theirs, document.receiving.taken) else { return };
        let sends = document.access == Access::Write;
        let skip = document.sending.skip().filter(|_| sends).map(|(from, to)| Skip { document: number, from, to });
        if skip.is_some() {
            if !document.sending.is_unreceived() {
                document.sending.begin(self.now);
            }
            document.sending.skipped();
        }
        let here = (document.receiving.held, document.sending.tail, document.digest);
        let level = document.is_level() && document.told_level != Some(here) && !document.forked;
        if level {
            document.told_level = Some(here);
            document.told.at = self.now;
        }
        document.receiving.acknowledged();
        self.acks += 1;
        let ack = Ack {
            document: theirs.number,
            number: self.acks,
            received,
            held: document.receiving.held,
            window: document.receiving.window(u64::from(self.config.limits.window)),
            credit: u64::from(self.config.limits.credit).saturating_sub(self.undurable),
            skip,
            level: level.then_some(Level { tail: here.1, digest: here.2 }),
        };
        self.link.send(&Message::Ack(ack));
        self.set_retransmit(number);
    }

    // ---------------------------------------------------------------------------------------- in step

    /// Compares with where the peer stands, once both mean the same entries.
    pub(super) fn check_level(&mut self, number: u32) {
        let Some(document) = self.documents.get_mut(&number).filter(|document| document.is_open()) else { return };
        if !document.is_level() || document.forked {
            return;
        }
        let here = (document.receiving.held, document.sending.tail, document.digest);
        if document.told_level != Some(here) {
            self.acks_due.insert(number);
            self.timers.set_earlier(Timer::Ack, self.now + self.config.ack_delay * LEVEL_DELAYS);
        }
        let Some((held, tail, digest)) = document.peer_level else { return };
        if (held, tail) != (here.1, here.0) {
            return;
        }
        if digest != here.2 {
            // An end that only reads may hold ops that it can't send.
            match (document.access, document.peer_access) {
                (Access::Write, Access::Write) => {
                    return self.close_for(number, Code::MISMATCH, "the digests of the heads differ");
                }
                (Access::Read, Access::Read) => return,
                _ => {}
            }
        }
        document.told.tries = 0;
        if document.in_step.replace(here) != Some(here) {
            self.event(Event::InStep { number });
        }
    }

    /// When a document that waits to hear from the peer that both are in step asks for it.
    pub(super) fn level_due(&self, number: u32) -> Option<Instant> {
        let document =
            self.documents.get(&number).filter(|document| self.link.is_datagram() && document.awaits_level())?;
        let wait = self.round_trip.wait(self.config.ack_delay * LEVEL_DELAYS, document.told.tries);
        Some(document.told.at + wait)
    }
}

impl super::document::Document {
    /// Whether, as far as this end knows, both hold everything.
    pub(super) fn is_level(&self) -> bool {
        self.is_open() && self.sending.is_done() && self.receiving.is_level()
    }

    /// Whether the peer was told that both are in step, and has not said the same of where both are now.
    pub(super) fn awaits_level(&self) -> bool {
        let here = (self.receiving.held, self.sending.tail, self.digest);
        let heard = self.peer_level.is_some_and(|(held, tail, _)| (held, tail) == (here.1, here.0));
        self.is_level() && self.told_level == Some(here) && self.in_step != Some(here) && !heard && !self.forked
    }
}
