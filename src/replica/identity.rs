//! Identity: what peers hold of our own ops, and a new id when that shows that this replica was copied or set back.
//!
//! Peers may lie. So a session makes its replica take a new id at most once, and running sessions go on under the id
//! that they began with: nobody else is disturbed.

use super::attaching::Postponed;
use super::{Asked, Event, LinkId, Opened, Replica, Ticket};
use crate::codes::Code;
use crate::digest::Chain;
use crate::heads::Head;
use crate::op::{DocumentId, OpId, ReplicaId};
use crate::storage::{Request, Transaction};

impl Replica {
    // ---------------------------------------------------------------------------------------- a new id

    /// Takes a new replica id. What was authored under the old one stays what it is.
    pub(super) fn renew(&mut self) {
        let before = self.identity.replica;
        let replica = ReplicaId(self.rng.bytes16());
        self.identity.renew(replica);
        // Storage is prefix-consistent: nothing authored under the new id is durable before the id is.
        self.write_identity();
        self.documents.values_mut().for_each(|document| document.reauthor(before, replica));
        self.event(Event::Renewed { replica, before });
    }

    /// The same because of what the peer of a link says of the id that it knows us by; if we still have that.
    pub(super) fn renew_for(&mut self, link: LinkId) {
        if self.links.get(&link).is_some_and(|state| state.session.replica() == self.identity.replica) {
            self.renew();
        }
    }

    pub(super) fn write_identity(&mut self) {
        let identity = self.identity.clone();
        let ticket = self.request(Asked::Identity, Request::Write(Transaction::Identity(identity)));
        let deadline = self.identity_write.map_or(self.now + self.config.write_deadline, |(_, deadline)| deadline);
        self.identity_write = Some((ticket, deadline));
    }

    pub(super) fn identity_written(&mut self, ticket: Ticket) {
        self.identity_retry.reset();
        if self.identity_write.take_if(|(latest, _)| *latest == ticket).is_some() {
            self.reset_waiting();
        }
    }

    // ---------------------------------------------------------------------------------------- what a peer holds of our ops

    /// A peer that holds more of our ops than we do, or others, shows that this replica was set back or copied.
    pub(super) fn check_own(&mut self, link: LinkId, number: u32, own: Head) {
        let Some(document) = self.numbers.get(&number).cloned() else { return };
        let (Some(state), Some(link_state)) = (self.documents.get_mut(&document), self.links.get(&link)) else {
            return;
        };
        let me = link_state.session.replica();
        let held = state.taken_head(me);
        let Some(attached) = state.links.get_mut(link).filter(|attached| !attached.thorough) else {
            return; // heads are exchanged, which tell more
        };
        if own.seq > held.seq || own.seq == held.seq && own.chain != held.chain {
            self.set_back(link, &document);
        } else if own.seq > 0 && own.seq < held.seq {
            attached.checking = Some(Postponed(None));
            let Some(opened) = self.opened_on(link, &document) else { return };
            let ids = [OpId { author: me, seq: own.seq }].into();
            self.request(Asked::Own(document.clone(), opened, own), Request::Chains { document, ids });
        }
    }

    pub(super) fn own_checked(&mut self, document: &DocumentId, opened: Opened, own: Head, chains: &[Option<Chain>]) {
        let link = opened.link;
        if self.opened_on(link, document) != Some(opened) {
            return; // it was closed meanwhile
        }
        if chains.first().is_some_and(|chain| chain.is_some_and(|chain| chain != own.chain)) {
            return self.set_back(link, document);
        }
        let Some(attached) = self.attached(link, document) else { return };
        let (number, postponed) = (attached.number(), attached.checking.take());
        if let (Some(Postponed(Some((from, max_cost)))), Some(number)) = (postponed, number) {
            self.load(link, number, from, max_cost);
        }
    }

    /// Whether entries are not to be read for a session yet; then they will be.
    pub(super) fn postpones(&mut self, link: LinkId, document: &DocumentId, from: u64, max_cost: u64) -> bool {
        let attached = self.attached(link, document);
        let Some(Postponed(postponed)) = attached.and_then(|attached| attached.checking.as_mut()) else { return false };
        *postponed = Some((from, max_cost));
        true
    }

    /// The peer may hold ops of ours that this replica does not know of, or others in the place of those it does: takes
    /// a new id, and opens the document again with heads, which tell where the histories part.
    fn set_back(&mut self, link: LinkId, document: &DocumentId) {
        if self.number_on(link, document).is_none() {
            return;
        }
        self.renew_for(link);
        self.close_on(link, document, Code::SET_BACK, "you hold ops of this replica's that it does not know");
        self.reopen_on(link, document, Code::SET_BACK);
    }
}
