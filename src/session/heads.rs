//! Heads, where cursors do not tell what the peer lacks; and the forks that they show.

use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;

use super::{Event, Misuse, Output, Session};
use crate::codes::Code;
use crate::log::Comparison;
use crate::op::ReplicaId;
use crate::wire::control::{FORKS_MAX, Fork, HeadsPart, pack_heads, unpack_heads};
use crate::wire::{Malformed, Message};

impl Session {
    /// Sends as many of our heads as may go now.
    pub(super) fn pump_heads(&mut self) {
        let numbers: Vec<_> = self.heads_out.iter().copied().collect();
        let Some(frame_bytes) = self.frame_bytes() else { return };
        for number in numbers {
            while !self.link.control_is_full() {
                let Some(document) = self.documents.get_mut(&number) else { break };
                let Some(resuming) = document.resuming.as_deref_mut() else { break };
                let Some((after, offset)) = resuming.outgoing.take() else { break };
                const HEAD_OF_MESSAGE: usize = 32;
                let left = resuming.opening.heads.after(after);
                let (heads, count, stopped) = pack_heads(left, frame_bytes - HEAD_OF_MESSAGE);
                let last = stopped.is_none();
                resuming.outgoing = stopped.map(|author| (Some(author), offset + count));
                self.link.send_control(&Message::Heads(HeadsPart { document: number, offset, last, heads }));
            }
            if self.documents.get(&number).is_none_or(|document| !document.sends_heads()) {
                self.heads_out.remove(&number);
                self.settle_resuming(number);
            }
        }
    }

    pub(super) fn on_heads(&mut self, part: HeadsPart) -> Result<(), Malformed> {
        let Some(number) = self.by_peer.get(part.document).copied() else { return Ok(()) };
        let Some(document) = self.documents.get_mut(&number) else { return Ok(()) };
        let Some(resuming) = document.resuming.as_deref_mut() else {
            self.unexpected("heads came that were not asked for");
            return Ok(());
        };
        if document.sending.started.is_some() || resuming.comparing.is_some() || document.offered.is_some() {
            self.unexpected("heads came that were not asked for");
            return Ok(());
        }
        if part.offset as usize != resuming.incoming.len() {
            return Err(Malformed::Order);
        }
        unpack_heads(part.heads, &mut resuming.incoming, &mut resuming.incoming_last)?;
        if resuming.incoming.len() > self.config.limits.authors as usize {
            self.end(Code::OVERSIZED, "a document has more authors than the limits allow");
        } else if part.last {
            let heads = Arc::new(core::mem::take(&mut resuming.incoming));
            resuming.comparing = Some(heads.clone());
            self.link.outputs.push_back(Output::Compare { number, heads });
        }
        Ok(())
    }

    pub(super) fn compared(&mut self, number: u32, comparison: Comparison) -> Result<(), Misuse> {
        let document = self.documents.get_mut(&number).ok_or(Misuse::NotOpen(number))?;
        if !document.is_open() {
            return Ok(()); // closed meanwhile
        }
        let comparing = document.resuming.as_deref_mut().and_then(|resuming| resuming.comparing.take());
        document.sending.filter_by(comparing.ok_or(Misuse::NotAsked)?);
        comparison.forks.iter().for_each(|author| document.sending.fork(*author));
        if !comparison.forks.is_empty() {
            self.tell_fork(number, &comparison.forks);
        }
        self.start_sending(number, comparison.from, true);
        Ok(())
    }

    /// Tells the peer of a fork, once. Its answer is the same message: the host hears of the fork when it is here, for
    /// the host may end the session then.
    pub(super) fn tell_fork(&mut self, number: u32, forked: &[ReplicaId]) {
        let Some(document) = self.documents.get_mut(&number) else { return };
        if core::mem::replace(&mut document.forked, true) {
            return;
        }
        document.forks = forked.iter().take(FORKS_MAX).copied().collect();
        let authors: Vec<_> = document.forks.iter().flat_map(|author| author.0).collect();
        self.link.send_control(&Message::Fork(Fork { document: number, authors: authors.into() }));
    }

    pub(super) fn on_fork(&mut self, fork: &Fork) -> Result<(), Malformed> {
        let Some(number) = self.by_peer.get(fork.document).copied() else { return Ok(()) };
        let Some(document) = self.documents.get_mut(&number) else { return Ok(()) };
        let ids: &Bytes = &fork.authors;
        if ids.is_empty() || !ids.len().is_multiple_of(16) || ids.len() > 16 * FORKS_MAX {
            return Err(Malformed::Control);
        }
        let author = |id: &[u8]| ReplicaId(core::array::from_fn(|index| id[index]));
        let mut authors: Vec<_> = ids.chunks_exact(16).map(author).collect();
        if !core::mem::replace(&mut document.fork_told, true) {
            authors.iter().for_each(|author| document.sending.fork(*author));
            self.tell_fork(number, &authors);
            let found = self.documents.get_mut(&number).map(|document| core::mem::take(&mut document.forks));
            authors.extend(found.unwrap_or_default());
            authors.sort_unstable();
            authors.dedup();
            self.event(Event::Forked { number, authors });
        }
        Ok(())
    }
}
