//! Changes and acknowledgements of open documents, and whose turn it is to send.

use alloc::vec::Vec;
use core::time::Duration;

use super::receiving::{Bounds, Taken};
use super::sending::{Allowance, Step};
use super::{Event, Live, Misuse, Output, Session, Timer};
use crate::codes::Code;
use crate::log::Chunk;
use crate::op::Timeline;
use crate::time::Instant;
use crate::wire::{Access, Ack, Announce, Changes, Level, Malformed, Message, Packed, Point, Rewind, Skip};

/// How long frames that overtook others are waited for before what they overtook is taken for lost.
const REORDER_WAIT: Duration = Duration::from_millis(10);

/// How many acknowledgement delays a level waits for that has no acknowledgement to travel with.
const LEVEL_DELAYS: u32 = 2;

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
        (document.sending.tail, document.digest) = (tail, digest);
        if !document.is_open() {
            return Ok(());
        }
        if held > document.receiving.held {
            let released = document.receiving.persisted(held);
            self.undurable -= released;
            self.acknowledge(number);
        }
        match live {
            Some(Live::Packed(frames)) => frames.iter().for_each(|packed| self.send_live(number, packed)),
            Some(Live::Brought { by, from, to }) => self.pass_live(number, by, from, to),
            None => {}
        }
        self.check_level(number);
        self.wake(number);
        Ok(())
    }

    /// Passes entries that the peer brought itself, if these did come from it and this document is just there.
    fn pass_live(&mut self, number: u32, by: Timeline, from: u64, to: u64) {
        let Some(document) = self.documents.get_mut(&number) else { return };
        if document.sending.is_at(from) && document.sending.live_origin == Some(by) {
            document.sending.passed = to;
            self.acknowledge(number);
        }
    }

    /// Sends a frame that serves all sessions, if this document is just there and there is room.
    fn send_live(&mut self, number: u32, packed: &Packed) {
        let Some(document) = self.documents.get(&number).filter(|document| document.sending.is_at(packed.from)) else {
            return;
        };
        if let Some(by) = packed.origin.filter(|_| packed.origin == document.sending.live_origin) {
            return self.pass_live(number, by, packed.from, packed.to);
        }
        let Some(bytes) = self.frame_bytes().filter(|_| self.may_send(number)) else { return };
        let op_max = self.peer.as_ref().map_or(0, |peer| u64::from(peer.limits.op));
        let fits = packed.cost <= op_max && packed.frame.len() <= bytes && self.link.room >= packed.frame.len() as u64;
        if !fits || self.allowance(number, bytes).is_none_or(|allowance| packed.cost > allowance.cost) {
            return;
        }
        let skips = |session: &Self| session.documents.get(&number).is_some_and(|state| state.sending.skip().is_some());
        if skips(self) {
            self.send_ack(number);
            if skips(self) {
                return; // not known yet what to acknowledge: the skip goes with a frame of its own
            }
        }
        self.announce(number, packed);
        self.link.send_frame(packed.frame.clone());
        self.outstanding += packed.cost;
        let Some(document) = self.documents.get_mut(&number) else { return };
        if !document.sending.is_unreceived() {
            document.sending.progress = self.now;
        }
        let window = document.sending.window;
        document.sending.sent_live(packed, window);
        self.measure(number, Point::at(packed.to));
        self.set_retransmit(number);
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
                        document.sending.progress = self.now;
                    }
                    self.sent(number, &packed, end, fresh, part);
                    self.ready.insert(number);
                }
            }
        }
    }

    fn sent(&mut self, number: u32, packed: &Packed, end: Point, fresh: bool, part: bool) {
        self.announce(number, packed);
        self.link.send_frame(packed.frame.clone());
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
        if let Some(skip) = ack.skip {
            self.on_skip(number, skip)?;
        }
        if let (Some(level), true, Some(document)) = (ack.level, newest, self.documents.get_mut(&number)) {
            let told = Some((ack.held, level.tail, level.digest));
            let again = core::mem::replace(&mut document.peer_level, told) == told;
            // It says so again because it has not heard it from us, unless it answers our doing the same.
            if again && !core::mem::take(&mut document.told.again) {
                document.told_level = None;
            }
        }
        self.check_level(number);
        self.wake(number);
        self.wake_some();
        Ok(())
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

    // ---------------------------------------------------------------------------------------- the peer's log

    pub(super) fn on_author(&mut self, author: &Announce) -> Result<(), Malformed> {
        let Some(number) = self.by_peer.get(&author.document).copied() else { return Ok(()) };
        let Some(document) = self.documents.get_mut(&number) else { return Ok(()) };
        let authors_max = self.config.limits.authors;
        if !document.receiving.announce(author.number, author.author, author.base, authors_max) {
            self.end(Code::OVERSIZED, "an author was announced twice, or too many were");
            return Ok(());
        }
        self.unpark(number)
    }

    pub(super) fn on_changes(&mut self, changes: Changes) -> Result<(), Malformed> {
        match self.by_peer.get(&changes.document).copied() {
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

    fn unpark(&mut self, number: u32) -> Result<(), Malformed> {
        while let Some(changes) = self.documents.get_mut(&number).and_then(|document| document.receiving.unpark()) {
            let before = self.documents.get(&number).and_then(|document| document.receiving.taken);
            self.take(number, changes)?;
            if self.documents.get(&number).and_then(|document| document.receiving.taken) == before {
                break; // parked again: an author is not known yet
            }
        }
        Ok(())
    }

    fn take(&mut self, number: u32, changes: Changes) -> Result<(), Malformed> {
        let link_left = u64::from(self.config.limits.credit).saturating_sub(self.undurable);
        let limits = self.config.limits;
        let datagram = self.link.is_datagram();
        let Some(document) = self.documents.get_mut(&number) else { return Ok(()) };
        let Some(theirs) = &document.theirs else { return Ok(()) };
        let (theirs_begins, origin) = (theirs.begins, theirs.timeline);
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
            begins: theirs_begins,
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
            Taken::Ops { from, to, ops, cost } => {
                self.undurable += cost;
                self.link.outputs.push_back(Output::Take { number, origin, from, to, ops });
                self.acknowledge(number);
            }
            Taken::Part | Taken::Duplicate => self.acknowledge(number),
            Taken::Early => self.on_early(number),
            Taken::TooLarge => self.end(Code::OVERRUN, "more was sent than the limits and the credit allow"),
        }
        Ok(())
    }

    /// A frame came before one that is missing.
    fn on_early(&mut self, number: u32) {
        if self.link.is_datagram() {
            self.ask_missing(number, true);
            self.timers.set_earlier(Timer::Rewind, self.now + REORDER_WAIT);
        } else {
            // What came is not kept; everything from the gap on must come again.
            self.ask_again(number);
        }
    }

    fn ask_missing(&mut self, number: u32, patient: bool) {
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

    fn ask_again(&mut self, number: u32) {
        let Some(document) = self.documents.get_mut(&number) else { return };
        let (Some(theirs), Some(received)) = (&document.theirs, document.receiving.taken) else { return };
        if document.receiving.ask_once(received, self.now) {
            self.acks += 1;
            let (document, number) = (theirs.number, self.acks);
            self.link.send(&Message::Rewind(Rewind { document, number, received, from: received, to: None }));
        }
    }

    fn on_skip(&mut self, number: u32, skip: Skip) -> Result<(), Malformed> {
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
        let urgent = document.receiving.unacknowledged * 2 >= u64::from(self.config.limits.window);
        self.acks_due.insert(number);
        if urgent {
            self.send_ack(number);
        } else {
            self.timers.set_earlier(Timer::Ack, self.now + self.config.ack_delay);
        }
    }

    /// All windows are to be stated: once a delay, however often the peer asks.
    pub(super) fn acknowledge_all(&mut self) {
        self.restate = true;
        self.timers.set_earlier(Timer::Ack, self.now + self.config.ack_delay);
    }

    fn send_ack(&mut self, number: u32) {
        self.acks_due.remove(&number);
        let Some(document) = self.documents.get_mut(&number).filter(|document| document.is_open()) else { return };
        let (Some(theirs), Some(received)) = (&document.theirs, document.receiving.taken) else { return };
        let sends = document.access == Access::Write;
        let skip = document.sending.skip().filter(|_| sends).map(|(from, to)| Skip { document: number, from, to });
        if skip.is_some() {
            if !document.sending.is_unreceived() {
                document.sending.progress = self.now;
            }
            document.sending.skipped();
        }
        let here = (document.receiving.held, document.sending.tail, document.digest);
        let level = document.is_level() && document.told_level != Some(here) && !document.forked;
        if level {
            document.told_level = Some(here);
            document.told.at = self.now;
        }
        document.receiving.unacknowledged = 0;
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
            if document.access == Access::Read || document.peer_access == Access::Read {
                return;
            }
            return self.close_for(number, Code::MISMATCH, "the digests of the heads differ");
        }
        document.told.tries = 0;
        if document.in_step.replace(here) != Some(here) {
            self.event(Event::InStep { number });
        }
    }

    /// When a document that waits to hear from the peer that both are in step asks for it by saying so again.
    fn level_due(&self, number: u32) -> Option<Instant> {
        let document =
            self.documents.get(&number).filter(|document| self.link.is_datagram() && document.awaits_level())?;
        let wait = self.round_trip.wait(self.config.ack_delay * LEVEL_DELAYS, document.told.tries);
        Some(document.told.at + wait)
    }

    // ---------------------------------------------------------------------------------------- timers

    pub(super) fn on_document_timers(&mut self) {
        let now = self.now;
        if self.timers.fired(Timer::Ack, now) {
            if core::mem::take(&mut self.restate) {
                self.acks_due.extend(self.by_peer.values());
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

    fn set_retransmit(&mut self, number: u32) {
        if !self.link.is_datagram() {
            return;
        }
        let Some(document) = self.documents.get(&number) else { return };
        if document.sending.is_unreceived() {
            let wait = self.round_trip.wait(self.config.ack_delay, document.sending.tries);
            self.timers.set_earlier(Timer::Retransmit, document.sending.progress + wait);
        } else if let Some(due) = self.level_due(number) {
            self.timers.set_earlier(Timer::Retransmit, due);
        }
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
        let untold = self.documents.iter().filter(|(_, document)| document.awaits_level());
        let numbers: Vec<_> = untold.map(|(number, _)| *number).collect();
        for number in numbers {
            if self.level_due(number).is_some_and(|due| due <= now)
                && let Some(document) = self.documents.get_mut(&number)
            {
                document.told_level = None;
                (document.told.tries, document.told.again) = (document.told.tries + 1, true);
                self.send_ack(number);
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

impl super::document::Document {
    /// Whether, as far as this end knows, both hold everything.
    fn is_level(&self) -> bool {
        self.is_open() && self.sending.is_done() && self.receiving.is_level()
    }

    /// Whether the peer was told that both are in step, and has not said the same of where both are now.
    fn awaits_level(&self) -> bool {
        let here = (self.receiving.held, self.sending.tail, self.digest);
        let heard = self.peer_level.is_some_and(|(held, tail, _)| (held, tail) == (here.1, here.0));
        self.is_level() && self.told_level == Some(here) && self.in_step != Some(here) && !heard && !self.forked
    }
}
