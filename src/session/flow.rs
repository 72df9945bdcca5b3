//! My log: changes sent, whose turn it is, and what the peer says it has of it.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

use super::document::Document;
use super::sending::{Allowance, Step};
use super::{Event, Live, Misuse, Output, Session, Timer};
use crate::codes::Code;
use crate::log::Chunk;
use crate::op::Origin;
use crate::time::Instant;
use crate::wire::changes::PACK_SLACK;
use crate::wire::{Access, Ack, Announce, Credit, ImmediateAck, Malformed, Message, Packed, Point, Rewind};

impl Session {
    // ---------------------------------------------------------------------------------------- the host's storage

    /// More is durable here.
    pub(super) fn advance(
        &mut self,
        number: u32,
        tail: u64,
        digest: u64,
        held: u64,
        live: Option<Live>,
    ) -> Result<(), Misuse> {
        let document = self.documents.get_mut(&number).ok_or(Misuse::NotOpen(number))?;
        let taken = document.receiving.taken.map_or(held, |taken| taken.position);
        if tail < document.sending.tail || held > taken {
            return Err(Misuse::Regressed);
        }
        document.digest = digest;
        if document.access == Access::Write {
            document.sending.tail = tail; // who only reads has nothing to send, however its log grows
        }
        if !document.is_open() {
            return Ok(());
        }
        let mut news = held > document.receiving.held;
        if news {
            let released = document.receiving.persisted(held);
            self.undurable -= released;
        }
        match live {
            Some(Live::Packed(frames)) => frames.iter().for_each(|packed| news |= self.send_live(number, packed)),
            Some(Live::Brought { by, from, to }) => news |= self.pass_live(number, by, from, to),
            None => {}
        }
        if news {
            self.acknowledge(number); // both in one: what has become durable, and what need not be sent
        }
        self.ask_ack(number);
        self.check_level(number);
        self.wake(number);
        Ok(())
    }

    /// The host waits for the acknowledgement of all that is in the log.
    pub(super) fn want_ack(&mut self, number: u32) -> Result<(), Misuse> {
        let document = self.documents.get_mut(&number).ok_or(Misuse::NotOpen(number))?;
        document.sending.awaited = Some(document.sending.tail);
        self.ask_ack(number);
        Ok(())
    }

    /// Asks for an acknowledgement if one is waited for and everything that it is to cover was sent.
    fn ask_ack(&mut self, number: u32) {
        let Some(document) = self.documents.get_mut(&number).filter(|document| document.is_open()) else { return };
        if let Some(to) = document.sending.ask_ack() {
            self.link.send(&Message::ImmediateAck(ImmediateAck { document: number, to }));
        }
    }

    /// Passes entries that the peer brought itself, if these did come from it and this document is just there: then the
    /// peer is to be told.
    fn pass_live(&mut self, number: u32, by: Origin, from: u64, to: u64) -> bool {
        let Some(document) = self.documents.get_mut(&number) else { return false };
        let passes = document.sending.is_at(from) && document.sending.live_origin == Some(by);
        if passes {
            document.sending.passed = to;
        }
        passes
    }

    /// Sends a frame that serves all sessions, if this document is just there and there is room; or passes it, of which
    /// the peer is to be told.
    fn send_live(&mut self, number: u32, packed: &Packed) -> bool {
        let Some(document) = self.documents.get(&number).filter(|document| document.sending.is_at(packed.from)) else {
            return false;
        };
        if let Some(by) = packed.origin.filter(|_| packed.origin == document.sending.live_origin) {
            return self.pass_live(number, by, packed.from, packed.to);
        }
        if packed.authors.iter().any(|author| document.sending.is_forked(author.id)) {
            return false; // read instead, op by op
        }
        let Some(bytes) = self.frame_bytes().filter(|_| self.may_send(number)) else { return false };
        let op_max = self.peer.as_ref().map_or(0, |peer| u64::from(peer.limits.op));
        // What would not be packed so again goes in parts from the first time on: repeated in parts, it might have to wait
        // for another op that is under way so, and that for it.
        let fits_again = packed.frame.len() + PACK_SLACK <= bytes;
        let fits = packed.cost <= op_max && fits_again && self.link.room >= packed.frame.len() as u64;
        if !fits || self.allowance(number, bytes).is_none_or(|allowance| packed.cost > allowance.cost) {
            return false;
        }
        let skips = |session: &Self| session.documents.get(&number).is_some_and(|state| state.sending.skip().is_some());
        if skips(self) {
            self.send_ack(number);
            if skips(self) {
                return false; // not known yet what to acknowledge: the skip goes with a frame of its own
            }
        }
        self.acknowledge_along(number);
        self.announce(number, packed);
        self.link.send_changes(packed.frame.clone());
        self.outstanding += packed.cost;
        let Some(document) = self.documents.get_mut(&number) else { return false };
        if !document.sending.is_unreceived() {
            document.sending.begin(self.now);
        }
        let window = document.sending.window;
        document.sending.sent_live(packed, window);
        self.measure(number, Point::at(packed.to));
        self.set_retransmit(number);
        false
    }

    pub(super) fn loaded(&mut self, number: u32, chunk: Chunk) -> Result<(), Misuse> {
        let document = self.documents.get_mut(&number).ok_or(Misuse::NotOpen(number))?;
        if document.is_open() && !document.sending.loaded(chunk) {
            return Err(Misuse::NotAsked);
        }
        self.wake(number);
        Ok(())
    }

    // ---------------------------------------------------------------------------------------- sending

    /// Bytes of the largest message for this peer.
    pub(super) fn frame_bytes(&self) -> Option<usize> {
        let peer = self.peer.as_ref()?;
        Some(self.link.message_bytes_max().min(peer.limits.frame as usize))
    }

    fn may_send(&self, number: u32) -> bool {
        self.is_live() && self.documents.get(&number).is_some_and(|document| document.access == Access::Write)
    }

    /// What the document may send now.
    fn allowance(&self, number: u32, bytes: usize) -> Option<Allowance> {
        let document = self.documents.get(&number)?;
        let outstanding = document.sending.outstanding.total();
        let window = document.sending.window;
        let window_max = u64::from(self.peer.as_ref()?.limits.window);
        // Half of what the others leave, so that a document that is stuck can't starve them. What of it the peer has
        // taken and not made durable is gone from the credit and from the window: it belongs to the document's half.
        let others = self.outstanding - outstanding;
        let stuck = window_max.saturating_sub(window);
        let share = self.credit.1.saturating_sub(others.saturating_add(stuck)) / 2;
        // While a document waits for the link, the others leave it to it.
        let mine = self.claim.is_none_or(|claim| claim == number);
        let whole = outstanding == 0 && window >= window_max && self.credit.1 > others;
        Some(Allowance {
            number,
            begins: document.begins,
            bytes,
            cost: if mine { window.min(share).saturating_sub(outstanding) } else { 0 },
            lone: mine && whole,
            alone: others == 0,
            part: self.parts_out.is_none(),
            part_window: window_max,
            repair: self.repaired.1 < window_max,
            op_max: u64::from(self.peer.as_ref()?.limits.op),
        })
    }

    fn announce(&mut self, number: u32, packed: &Packed) {
        for author in &packed.authors {
            let Some(document) = self.documents.get_mut(&number) else { return };
            if document.sending.announce(author.number) {
                self.link.send_control(&Message::Author(Announce {
                    document: number,
                    number: author.number,
                    author: author.id,
                    base: author.base,
                }));
            }
        }
    }

    /// The document may have something to send.
    pub(super) fn wake(&mut self, number: u32) {
        let has_more = self.documents.get(&number).is_some_and(|document| {
            document.is_open() && document.sending.started.is_some() && !document.sending.is_idle()
        });
        if has_more {
            self.blocked.remove(&number);
            self.ready.insert(number);
        }
    }

    /// There may be more credit or room.
    pub(super) fn wake_blocked(&mut self) {
        self.ready.append(&mut self.blocked);
    }

    /// There may be a little more credit: some who wait for it try, in turn, lest each acknowledgement costs as much as
    /// there are documents. As long as something is outstanding, another one will come.
    fn wake_some(&mut self) {
        const WOKEN_MAX: usize = 16;
        if self.outstanding == 0 {
            return self.wake_blocked();
        }
        let in_turn = self.blocked.range(self.turn..).chain(self.blocked.range(..self.turn));
        let woken: Vec<_> = in_turn.take(WOKEN_MAX).chain(self.claim.as_ref()).copied().collect();
        for number in woken {
            self.blocked.remove(&number);
            self.ready.insert(number);
        }
    }

    /// Whose turn it is.
    fn next_turn(&mut self) -> Option<u32> {
        use core::ops::Bound::{Excluded, Unbounded};
        let after = self.ready.range((Excluded(self.turn), Unbounded)).next();
        self.turn = after.or(self.ready.first()).copied()?;
        self.ready.take(&self.turn)
    }

    /// Sends what may go: heads, acknowledgements that are urgent, then one frame a document in turn.
    pub(super) fn pump(&mut self) {
        if !self.is_live() {
            return;
        }
        if !self.heads_out.is_empty() {
            self.pump_heads();
        }
        if !self.snapshots_out.is_empty() {
            self.pump_snapshots();
        }
        let Some(bytes) = self.frame_bytes().filter(|_| !self.ready.is_empty()) else { return };
        if self.now.since(self.repaired.0) >= self.round_trip.wait(Duration::ZERO, 0) {
            self.repaired = (self.now, 0);
        }
        // Ops that overtake what tells where they begin and whose they are would be of no use yet.
        while !self.link.control_waits() {
            if self.link.room < bytes as u64 {
                self.blocked.append(&mut self.ready); // nobody has had a turn
                return;
            }
            let Some(number) = self.next_turn() else { return };
            if !self.may_send(number) {
                continue;
            }
            let Some(allowance) = self.allowance(number, bytes) else { continue };
            let Some(document) = self.documents.get_mut(&number).filter(|document| document.is_open()) else {
                continue;
            };
            let was_unreceived = document.sending.is_unreceived();
            let step = document.sending.step(&allowance);
            match step {
                Step::Crowded => _ = self.claim.get_or_insert(number),
                _ => _ = self.claim.take_if(|claim| *claim == number),
            }
            match step {
                Step::Idle => {
                    if document.sending.skip().is_some() {
                        self.acknowledge(number);
                    }
                }
                Step::TooLarge => self.close_for(number, Code::OP_TOO_LARGE, "an op is larger than the peer takes"),
                Step::Blocked | Step::Crowded => {
                    self.blocked.insert(number);
                    if self.link.is_datagram() || !allowance.repair {
                        let wait = self.round_trip.wait(self.config.ack_delay, 0);
                        self.timers.set_earlier(Timer::Retransmit, self.now + wait);
                    }
                }
                Step::Load { from, max_cost } => {
                    self.link.outputs.push_back(Output::Load { number, from, max_cost });
                }
                Step::Send { packed, end, fresh, part } => {
                    if fresh && !was_unreceived {
                        document.sending.begin(self.now);
                    }
                    self.sent(number, &packed, end, fresh, part);
                    self.ready.insert(number);
                }
            }
        }
    }

    fn sent(&mut self, number: u32, packed: &Packed, end: Point, fresh: bool, part: bool) {
        self.announce(number, packed);
        self.link.send_changes(packed.frame.clone());
        if fresh {
            self.outstanding += packed.cost;
        } else {
            self.link.stats.frames_repeated += 1;
            self.repaired.1 += packed.frame.len() as u64;
        }
        if part && fresh {
            self.parts_out = (end.offset > 0 || self.link.is_datagram()).then_some((number, packed.from));
        }
        if fresh {
            self.measure(number, end);
            self.ask_ack(number);
        }
        self.set_retransmit(number);
    }

    // ---------------------------------------------------------------------------------------- what the peer says of my log

    pub(super) fn on_ack(&mut self, ack: &Ack) -> Result<(), Malformed> {
        if ack.number > self.credit.0 {
            self.credit = (ack.number, ack.credit);
        }
        let Some(document) = self.documents.get_mut(&ack.document).filter(|document| document.is_open()) else {
            self.wake_some();
            return Ok(());
        };
        let before = (document.sending.acked, document.sending.received, document.sending.outstanding.total());
        let newest = ack.number > document.sending.acks_seen;
        let late = ack.number <= document.sending.acks_void;
        if document.sending.acknowledge(ack, self.now).is_none() {
            self.unexpected("what was never sent was acknowledged");
            return Ok(());
        }
        self.outstanding -= before.2 - document.sending.outstanding.total();
        let (number, acked, received) = (ack.document, document.sending.acked, document.sending.received);
        if acked > before.0 {
            self.event(Event::Acknowledged { number, acked });
        }
        if received > before.1 {
            self.on_received(number, received);
        }
        if let Some(skip) = ack.skip.filter(|_| !late) {
            self.on_skip(number, skip)?;
        }
        if let (Some(level), true, Some(document)) = (ack.level, newest, self.documents.get_mut(&number)) {
            document.peer_level = Some((ack.held, level.tail, level.digest));
        }
        self.check_level(number);
        self.wake(number);
        self.wake_some();
        Ok(())
    }

    pub(super) fn on_credit(&mut self, credit: &Credit) {
        if credit.number > self.credit.0 {
            self.credit = (credit.number, credit.total);
            self.wake_blocked();
        }
    }

    fn on_received(&mut self, number: u32, received: Point) {
        self.parts_out.take_if(|(part, position)| *part == number && *position < received.position);
        if let Some((document, at)) = self.timed
            && document == number
            && received >= at.0
        {
            self.timed = None;
            self.round_trip.sample(self.now.since(at.1));
        }
        self.set_retransmit(number);
    }

    pub(super) fn on_rewind(&mut self, rewind: &Rewind) -> Result<(), Malformed> {
        let number = rewind.document;
        let Some(document) = self.documents.get_mut(&number).filter(|document| document.is_open()) else {
            return Ok(());
        };
        let before = document.sending.outstanding.total();
        if document.sending.rewind(rewind, self.now).is_none() {
            self.unexpected("what was never sent was asked for again");
            return Ok(());
        }
        self.outstanding -= before - document.sending.outstanding.total();
        self.timed = None;
        self.set_retransmit(number);
        self.wake(number);
        Ok(())
    }

    // ---------------------------------------------------------------------------------------- timers

    pub(super) fn on_document_timers(&mut self) {
        let now = self.now;
        if self.timers.fired(Timer::Ack, now) {
            if core::mem::take(&mut self.restate) {
                self.acks_due.extend(self.by_peer.after(None).map(|(_, number)| *number));
            }
            let due: Vec<_> = self.acks_due.iter().copied().collect();
            due.into_iter().for_each(|number| self.send_ack(number));
        }
        if self.timers.fired(Timer::Rewind, now) {
            let waiting = self.documents.iter().filter(|(_, document)| document.receiving.has_parked());
            let numbers: Vec<_> = waiting.map(|(number, _)| *number).collect();
            for number in numbers {
                self.ask_missing(number, false);
                self.timers.set_earlier(Timer::Rewind, now + self.round_trip.wait(Duration::ZERO, 0));
            }
        }
        if self.timers.fired(Timer::Retransmit, now) {
            self.on_retransmit_timer();
        }
    }

    pub(super) fn set_retransmit(&mut self, number: u32) {
        if !self.link.is_datagram() {
            return;
        }
        let Some(document) = self.documents.get(&number) else { return };
        if document.sending.is_unreceived() {
            let wait = self.round_trip.wait(self.config.ack_delay, document.sending.tries);
            self.timers.set_earlier(Timer::Retransmit, document.sending.progress + wait);
        } else if let Some(due) = self.ack_due(number).or_else(|| self.level_due(number)) {
            self.timers.set_earlier(Timer::Retransmit, due);
        }
    }

    /// When it is asked again whether what was received is durable: the acknowledgement that said so may be lost, and
    /// whoever waits for one itself has no reason to say so twice.
    fn ack_due(&self, number: u32) -> Option<Instant> {
        /// A storage takes its time: it is asked for after so many waits, doubled.
        const DOUBLED: u32 = 2;
        let sending = &self.documents.get(&number)?.sending;
        let is_due = self.link.is_datagram() && sending.is_unacknowledged();
        is_due.then(|| sending.progress + self.round_trip.wait(self.config.ack_delay, DOUBLED + sending.tries))
    }

    /// Measures the round trip by what was just sent, if nothing else measures it.
    fn measure(&mut self, number: u32, end: Point) {
        if self.link.is_datagram() && self.timed.is_none() {
            self.timed = Some((number, (end, self.now)));
        }
    }

    /// Whoever sent something of which nothing was heard for a round trip and more starts over.
    fn on_retransmit_timer(&mut self) {
        let now = self.now;
        let unreceived = self.documents.iter().filter(|(_, document)| document.sending.is_unreceived());
        let numbers: Vec<_> = unreceived.map(|(number, _)| *number).collect();
        for number in numbers {
            let Some(document) = self.documents.get_mut(&number) else { continue };
            let due = document.sending.progress + self.round_trip.wait(self.config.ack_delay, document.sending.tries);
            if due <= now {
                document.sending.recover(now);
                self.timed = None;
                self.wake(number);
            }
            self.set_retransmit(number);
        }
        let unacknowledged = self.documents.iter().filter(|(_, document)| document.sending.is_unacknowledged());
        let numbers: Vec<_> = unacknowledged.map(|(number, _)| *number).collect();
        for number in numbers {
            if self.ack_due(number).is_some_and(|due| due <= now)
                && let Some(Document { sending, .. }) = self.documents.get_mut(&number).map(Box::as_mut)
            {
                (sending.progress, sending.tries) = (now, sending.tries + 1);
                let to = sending.received.position;
                self.link.send(&Message::ImmediateAck(ImmediateAck { document: number, to }));
            }
            self.set_retransmit(number);
        }
        let untold = self.documents.iter().filter(|(_, document)| document.awaits_level());
        let numbers: Vec<_> = untold.map(|(number, _)| *number).collect();
        for number in numbers {
            if self.level_due(number).is_some_and(|due| due <= now)
                && let Some(document) = self.documents.get_mut(&number)
            {
                (document.told.at, document.told.tries) = (now, document.told.tries + 1);
                let to = document.sending.tail;
                self.link.send(&Message::ImmediateAck(ImmediateAck { document: number, to }));
            }
            self.set_retransmit(number);
        }
        let starved = !self.blocked.is_empty() && self.link.room > 0;
        if starved {
            self.send_ping(true);
            self.wake_blocked();
        }
    }
}
