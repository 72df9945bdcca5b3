//! How plans for replicas are drawn: how each is set up, and what its user does.

use std::time::Duration;

use antiphon::replica::{Admission, Authority, Options, Salvage};
use antiphon::wire::{Access, Durability};

use super::{App, ReplicaNode, Setup};
use crate::plan::{Place, Source, Workload};

/// Apps for which plans can be drawn. The documents are `doc0`, `doc1` and so on.
pub trait AppWorkload: App {
    /// How a replica is set up: as [`draw_setup`] says, if nothing else is needed.
    fn draw_setup(source: &mut dyn Source, place: &Place) -> Setup {
        draw_setup(source, place)
    }

    /// Something for its user to do that writes at most so many ops, and how many it writes.
    fn draw_action(source: &mut dyn Source, setup: &Setup, ops: u32) -> (Self::Action, u32);

    /// How many bytes an action writes.
    fn bytes(action: &Self::Action) -> u64;

    /// What else its user does before a moment, and when.
    fn draw_more(
        source: &mut dyn Source,
        place: &Place,
        setup: &Setup,
        until: Duration,
    ) -> Vec<(Duration, Self::Action)> {
        let _ = (source, place, setup, until);
        Vec::new()
    }
}

impl<A: AppWorkload> Workload for ReplicaNode<A> {
    fn draw_setup(source: &mut dyn Source, place: &Place) -> Setup {
        A::draw_setup(source, place)
    }

    fn draw_action(source: &mut dyn Source, setup: &Setup, ops: u32) -> (A::Action, u32) {
        A::draw_action(source, setup, ops)
    }

    fn bytes(action: &A::Action) -> u64 {
        A::bytes(action)
    }

    fn draw_more(source: &mut dyn Source, place: &Place, setup: &Setup, until: Duration) -> Vec<(Duration, A::Action)> {
        A::draw_more(source, place, setup, until)
    }
}

/// Draws how a replica is set up: mostly as usual, with a few odd limits.
pub fn draw_setup(source: &mut dyn Source, place: &Place) -> Setup {
    let mut setup = Setup::default();
    let authority = match (place.authority, place.node) {
        (false, _) => Authority::Nobody,
        (true, 0) => Authority::Us,
        (true, _) => Authority::Upstream,
    };
    // A reader passes nothing on and gives nothing back, so it is one to whom nobody is joined but one, and no authority.
    let reads = place.leaf && place.readers && authority != Authority::Us;
    let access = if reads && source.one_in(4) { Access::Read } else { Access::Write };
    let salvage = if source.one_in(6) { Salvage::HandOver } else { Salvage::Append };
    // Whoever joins others may have no app: it passes on what they open with it.
    let relays = !place.leaf && authority != Authority::Us && source.one_in(8);
    for document in (0..place.documents).filter(|_| !relays) {
        let document = format!("doc{document}").parse().expect("the name is valid");
        setup.documents.insert(document, Options { authority, access, salvage, ..Options::default() });
    }
    setup.sync_every = [0, 0, 1, 3][source.below(4) as usize];
    setup.config.session.durability = match source.below(8) {
        0 | 1 => Durability::Fsync,
        2 => Durability::Memory,
        _ => Durability::Commit,
    };
    let config = &mut setup.config;
    let limits = &mut config.session.limits;
    if source.one_in(6) {
        limits.frame = 600 + source.below(600) as u32;
    }
    if source.one_in(6) {
        limits.window = 200 << source.below(5);
        limits.credit = limits.window << source.below(3);
    }
    if source.one_in(4) {
        config.tail_max = 50 << source.below(5);
        config.read_max = 50 << source.below(5);
    }
    if source.one_in(6) {
        config.session.silence_max = source.millis(1_500, 3_000);
        config.session.ping_after = source.millis(300, 900);
    }
    if source.one_in(8) {
        config.write_deadline = source.millis(300, 2_000);
    }
    if source.one_in(6) {
        config.idle_max = source.millis(20, 500);
    }
    if source.one_in(8) {
        config.peers = Admission::Ask;
        config.documents = Admission::Ask;
        setup.answer_after = source.millis(0, 200);
    } else if !relays && source.one_in(8) {
        config.documents = Admission::Closed;
    }
    setup
}
