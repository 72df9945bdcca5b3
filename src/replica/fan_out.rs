//! Fan-out: what has become durable is packed once and offered to every session that has the document open; those that
//! are behind read what they lack.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;

use super::attaching::Attached;
use super::documents::Document;
use super::links::Link;
use super::{Asked, LinkId, Opened, Reading, Replica};
use crate::log::Log;
use crate::op::{DocumentId, Entry};
use crate::session::{self, Live};
use crate::small::SmallMap;
use crate::storage::{Batch, Request};
use crate::time::Instant;
use crate::wire::Packed;
use crate::wire::changes::pack;

/// What a document is fanned out to.
pub(super) struct Sessions<'a> {
    pub(super) links: &'a mut BTreeMap<LinkId, Box<Link>>,
    pub(super) busy: &'a mut VecDeque<LinkId>,
    /// Bytes of the largest frame.
    pub(super) frame_max: usize,
}

impl Document {
    /// Offers what is durable now to every session that has the document open, and says how many frames were packed.
    pub(super) fn fan_out(
        &mut self,
        batch: &Batch,
        held: &SmallMap<LinkId, u64>,
        now: Instant,
        sessions: &mut Sessions<'_>,
    ) -> u64 {
        let number = self.number;
        let Some((tail, digest)) = self.log().map(|log| (log.tail(), log.heads().digest())) else { return 0 };
        let mut live = self.pack_live(batch, sessions);
        let packed = if let Some(Live::Packed(frames)) = &live { frames.len() as u64 } else { 0 };
        let mut open = self.links.after(None).filter(|(_, attached)| attached.number().is_some()).peekable();
        while let Some((link, _)) = open.next() {
            // Mostly there is one session, and the last takes it whole.
            let live = if open.peek().is_none() { live.take() } else { live.clone() };
            let Some(state) = sessions.links.get_mut(link) else { continue };
            let known = state.session.held(number).map_or(0, |held| held.position);
            let held = held.get(*link).map_or(known, |held| known.max(*held));
            if batch.entries.is_empty() && held == known {
                continue;
            }
            let input = session::Input::Advance { number, tail, digest, held, live };
            state.input(now, *link, input, sessions.busy);
        }
        packed
    }

    /// Asks for the acknowledgements that are waited for, if what they are to cover is durable here.
    pub(super) fn want_acks(&mut self, now: Instant, sessions: &mut Sessions<'_>) {
        if self.pipeline.awaited.is_empty() {
            return;
        }
        let tail = self.log().map_or(0, Log::tail);
        let links = &self.links;
        self.pipeline.awaited.retain(|link, to| {
            let number = links.get(*link).and_then(Attached::number).filter(|_| *to <= tail);
            let (Some(number), Some(state)) = (number, sessions.links.get_mut(link)) else { return true };
            state.input(now, *link, session::Input::ImmediateAck { number }, sessions.busy);
            false
        });
    }

    /// Packs a batch once, for all sessions.
    fn pack_live(&mut self, batch: &Batch, sessions: &Sessions<'_>) -> Option<Live> {
        let entries = &batch.entries[..];
        let origin_of = |entries: &[Entry]| {
            let origin = entries.first()?.origin;
            origin.filter(|_| entries.iter().all(|entry| entry.origin == origin))
        };
        let mut open = self.links.after(None).filter(|(_, attached)| attached.number().is_some());
        let (first, _) = open.next()?;
        let only = if open.next().is_none() { sessions.links.get(first) } else { None };
        if let Some(origin) = origin_of(entries)
            && only.and_then(|reader| reader.session.origin(self.number)) == Some(origin)
        {
            return Some(Live::Brought { by: origin, from: batch.position, to: batch.tail() });
        }
        let number = self.number;
        let log = self.log_mut()?;
        let begins = log.history().current().begins;
        let mut pack_from = |done: usize| {
            let from = batch.position + done as u64;
            let ops = entries[done..].iter().map(|entry| &entry.op);
            let author = |id| log.author(id);
            let to = |count| from + count as u64;
            let (packed, count) = pack(number, begins, from, ops, author, sessions.frame_max, to)?;
            let origin = origin_of(&entries[done..done + count]);
            Some((Packed { origin, ..packed }, done + count))
        };
        let (first, mut done) = pack_from(0)?;
        if done == entries.len() {
            return Some(Live::Packed([first].into()));
        }
        let mut packed = Vec::from([first]);
        // An op that goes in parts every session reads for itself.
        while done < entries.len()
            && let Some((next, end)) = pack_from(done)
        {
            packed.push(next);
            done = end;
        }
        Some(Live::Packed(packed.into()))
    }
}

impl Replica {
    /// The app waits for a link's acknowledgement of all that it has appended, whether that is durable yet or not.
    pub(super) fn want_ack(&mut self, document: &DocumentId, link: LinkId) {
        let Some(state) = self.documents.get_mut(document).filter(|state| state.links.contains(link)) else { return };
        let to = state.tail_to_be();
        state.pipeline.awaited.insert(link, to);
        self.want_acks(document);
    }

    /// Asks for the acknowledgements of a document that are waited for and due.
    pub(super) fn want_acks(&mut self, document: &DocumentId) {
        let Some(state) = self.documents.get_mut(document) else { return };
        let frame_max = self.config.session.limits.frame as usize;
        let mut sessions = Sessions { links: &mut self.links, busy: &mut self.busy, frame_max };
        state.want_acks(self.now, &mut sessions);
    }

    // ---------------------------------------------------------------------------------------- reading

    /// A session that is behind wants entries: from memory if they are there, else from storage.
    pub(super) fn load(&mut self, link: LinkId, number: u32, from: u64, max_cost: u64) {
        let read_max = self.config.read_max;
        let Some(document) = self.numbers.get(&number).cloned() else { return };
        if self.postpones(link, &document, from, max_cost) {
            return;
        }
        let Some(log) = self.documents.get_mut(&document).and_then(|state| state.log_mut()) else { return };
        if let Some(chunk) = log.read(from, max_cost.min(read_max)) {
            return self.session_input(link, session::Input::Loaded { number, chunk });
        }
        let Some(opened) = self.opened_on(link, &document) else { return };
        // Sessions that are at the same place share one read.
        let reading = Reading { document: document.clone(), number, from };
        for asked in self.asked.values_mut() {
            if let Asked::Read(other, openings) = asked
                && *other == reading
            {
                return openings.push(opened);
            }
        }
        let request = Request::Read { document, from, max_cost: read_max };
        self.request_read(Asked::Read(reading, [opened].into()), request);
    }

    pub(super) fn read_done(&mut self, reading: &Reading, openings: Vec<Opened>, entries: Vec<Entry>) {
        let Reading { document, number, from } = reading;
        if self.numbers.get(number) != Some(document) {
            return; // the log was loaded or reset meanwhile: positions may mean something else
        }
        let state = self.documents.get(document);
        let gone = |log: &Log| *from < log.horizon();
        if entries.is_empty() && state.is_some_and(|state| state.apart.is_some() || state.log().is_some_and(gone)) {
            return openings.into_iter().for_each(|opened| self.reopen_compacted(document, opened));
        }
        if entries.is_empty() {
            return self.fail(document, String::from("the storage lacks entries that it was given"));
        }
        let Some(log) = self.documents.get_mut(document).and_then(|state| state.log_mut()) else { return };
        let chunk = log.chunk(*from, entries);
        for opened in openings {
            let chunk = chunk.clone();
            self.session_input_for(document, opened, |number| session::Input::Loaded { number, chunk });
        }
    }
}
