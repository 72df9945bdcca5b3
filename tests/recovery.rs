//! Restored backups and lost tails: each is noticed, each ends in step, and nothing that a disk holds is lost.

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;

use antiphon::codes::Code;
use antiphon::op::{Cursor, DocumentId};
use antiphon::replica::{Authority, Options};
use antiphon::rng::Rng;
use antiphon::storage::{Batch, Continuity, Storage, Transaction};
use antiphon::wire::Message;
use antiphon_memory::Disk;
use antiphon_sim::World;
use antiphon_sim::world::{Crash, Medium, NodeId};
use common::restored::*;
use common::*;

// -------------------------------------------------------------------------------------------- restored backups

#[test]
fn a_restored_backup_that_the_driver_notices_takes_its_lost_ops_back() {
    for stopped in [true, false] {
        let mut this = Restored::new(medium(), options(Authority::Nobody));
        let before = this.world.id(this.client);
        this.put_back(stopped, Continuity::Broken);
        let Restored { world, client, server, path, .. } = &mut this;
        assert_ne!(world.id(*client), before, "a replica whose continuity is broken takes a new id");
        world.append(*client, &doc(), "written before anyone could tell");
        world.append(*server, &doc(), "meanwhile");
        world.mend(*path);
        world.run_for(SECOND);
        world.append(*client, &doc(), "after");
        let (client, server) = (*client, *server);
        this.ends_with(&["written before anyone could tell", "meanwhile", "after"]);
        assert_eq!((forks(&this.world, client), forks(&this.world, server)), (0, 0));
        assert_eq!(renewals(&this.world, client), 0, "nothing was left to notice");
    }
}

#[test]
fn a_restored_backup_that_nobody_notices_is_noticed_by_what_the_peer_holds() {
    for medium in [medium(), datagrams()] {
        for stopped in [true, false] {
            let mut this = Restored::new(medium, options(Authority::Nobody));
            let before = this.world.id(this.client);
            this.put_back(stopped, Continuity::Proven);
            let Restored { world, client, server, path, .. } = &mut this;
            assert_eq!(world.id(*client), before);
            world.mend(*path);
            world.run_for(SECOND);
            world.append(*client, &doc(), "after");
            let (client, server) = (*client, *server);
            this.ends_with(&["after"]);
            assert_eq!(renewals(&this.world, client), 1);
            assert_eq!((forks(&this.world, client), forks(&this.world, server)), (0, 0));
            let after = entries_on(this.world.disk(client), &doc()).pop().expect("there are entries");
            assert_eq!(after.op.id.author, this.world.id(client));
            assert_ne!(this.world.id(client), before, "what is new is written under the new id");
            // It stays so over a restart.
            let id = this.world.id(client);
            this.world.crash(client, Crash::Kill);
            this.world.start(client, Continuity::Proven);
            assert_eq!(this.world.id(client), id);
        }
    }
}

#[test]
fn a_server_that_was_restored_gets_back_what_its_clients_hold() {
    let mut world = World::new(4);
    let nodes = [(); 3].map(|()| world.add(config()));
    let [first, server, second] = nodes;
    nodes.iter().for_each(|node| world.open(*node, &doc(), options(Authority::Nobody)));
    for client in [first, second] {
        world.join(client, server, medium());
    }
    let say = |world: &mut World, time: &str| {
        nodes.iter().zip(0..).for_each(|(node, who)| world.append(*node, &doc(), format!("{time} {who}")));
        converge(world, &nodes, &doc(), SECOND);
        world.run_for(SECOND);
    };
    say(&mut world, "kept");
    world.sync(server);
    say(&mut world, "lost");
    world.crash(server, Crash::PowerLoss { keep: 0 });
    assert_eq!(bodies_on(world.disk(server), &doc()).len(), 3);
    world.start(server, Continuity::Proven);
    converge(&mut world, &nodes, &doc(), 10 * SECOND);
    say(&mut world, "new");
    assert_eq!(set_on(world.disk(server), &doc()).len(), 9);
    assert_eq!(renewals(&world, server), 1);
    assert!(nodes.iter().all(|node| forks(&world, *node) == 0));
}

// -------------------------------------------------------------------------------------------- lost tails

fn write_cursor(disk: &Disk, document: &DocumentId, of: &Disk, beyond: u64) {
    let (peer, tail) = (identity(of), entries_on(of, document).len() as u64);
    let cursor = Cursor { timeline: peer.opens.current(), position: tail + beyond };
    let mut storage = disk.open().expect("nobody uses it");
    let position = storage.document(document).expect("the disk works").tail;
    let batch = Batch {
        document: document.clone(),
        position,
        entries: Vec::new(),
        cursors: vec![(peer.replica, cursor)],
        timeline: None,
        salvaged: None,
    };
    storage.write(&Transaction::Append(Arc::new(batch))).expect("the disk works");
}

#[test]
fn a_cursor_beyond_the_tail_starts_a_new_timeline_at_once() {
    let mut this = Restored::new(medium(), options(Authority::Nobody));
    let Restored { world, client, server, .. } = &mut this;
    let (client, server) = (*client, *server);
    world.crash(server, Crash::Kill);
    // The server has seen three ops more than the client now has, in the very timeline that the client is in.
    write_cursor(world.disk(server), &doc(), world.disk(client), 3);
    let before = world.transcript().len();
    world.start(server, Continuity::Proven);
    world.run_for(SECOND);
    assert_eq!(closes(world).iter().filter(|code| **code == Code::TAIL_LOST).count(), 2, "said, and answered");
    let timelines: Vec<_> = world.transcript()[before..]
        .iter()
        .filter(|sent| sent.from == client)
        .filter_map(|sent| match Message::decode(&sent.frame) {
            Ok(Message::Open(open)) => Some(open.timelines.map(|own| own.current)),
            _ => None,
        })
        .collect();
    assert!(matches!(timelines[..], [None, Some(_)]), "the next Open is in a timeline of its own: {timelines:?}");
    // Positions that were given out twice would swallow these.
    ["one", "two", "three", "four"].iter().for_each(|body| this.world.append(client, &doc(), *body));
    this.ends_with(&["one", "two", "three", "four"]);
    assert!(!closes(&this.world).contains(&Code::MISMATCH) && !closes(&this.world).contains(&Code::AUTHOR_GAP));
    assert_eq!(forks(&this.world, client) + forks(&this.world, server), 0);
}

#[test]
fn a_cursor_on_a_timeline_that_was_cut_short_counts_up_to_the_cut() {
    let mut world = World::new(6);
    world.record();
    let nodes = [(); 3].map(|()| world.add(config()));
    let [writer, server, reader] = nodes;
    nodes.iter().for_each(|node| world.open(*node, &doc(), Options::default()));
    world.join(writer, server, Medium::reliable(MILLISECOND));
    let path = world.join(reader, server, Medium::reliable(MILLISECOND));
    world.append(writer, &doc(), "kept");
    converge(&mut world, &nodes, &doc(), SECOND);
    world.sync(server);
    world.append(reader, &doc(), "lost at the server");
    world.append(reader, &doc(), "lost there too");
    converge(&mut world, &nodes, &doc(), SECOND);
    world.run_for(SECOND);
    world.cut(path, true);
    world.crash(server, Crash::PowerLoss { keep: 0 });
    assert_eq!(bodies_on(world.disk(server), &doc()).len(), 1);
    // The writer holds the lost ones and gives them back behind what is new at the same positions.
    world.start(server, Continuity::Proven);
    world.append(server, &doc(), "at a position that the reader knows for another op");
    world.append(server, &doc(), "and one more");
    world.run_for(SECOND);
    world.mend(path);
    converge(&mut world, &nodes, &doc(), 10 * SECOND);
    assert_eq!(set_on(world.disk(reader), &doc()).len(), 5);
    let repairs = closes(&world).iter().filter(|code| [Code::MISMATCH, Code::AUTHOR_GAP].contains(code)).count();
    assert_eq!(repairs, 0, "nobody relied on a position of the lost tail");
}

// -------------------------------------------------------------------------------------------- at random

/// Two clients on a server, for a while also on each other. Each client is restored once, from a backup of some time
/// before, with nobody noticing; networks, disks and processes fail besides.
fn restores(seed: u64) -> usize {
    let mut dice = Rng::new(seed);
    let mut world = World::new(dice.next_u64());
    let server = world.add(config());
    world.open(server, &doc(), options(Authority::Us));
    let clients = [(); 2].map(|()| world.add(config()));
    let medium = if dice.below(2) == 0 { medium() } else { datagrams() };
    let mut paths = Vec::new();
    for client in clients {
        world.open(client, &doc(), options(Authority::Upstream));
        world.set_storage_delay(client, MILLISECOND * dice.below(5) as u32);
        paths.push(world.join(client, server, medium));
    }
    if dice.below(3) == 0 {
        paths.push(world.join(clients[0], clients[1], Medium { upstream: false, ..medium }));
    }
    let mut backups: [Option<Disk>; 2] = [None, None];
    let mut restored = [false; 2];
    for step in 0..60 {
        let who = dice.below(2) as usize;
        let client = clients[who];
        let path = paths[dice.below(paths.len() as u64) as usize];
        match dice.below(16) {
            0..=5 => world.append(client, &doc(), format!("{step} of {who}")),
            6 => world.append(server, &doc(), format!("{step} of the server")),
            7 => world.cut(path, dice.below(2) == 0),
            8 => world.mend(path),
            9 if !restored[who] => backups[who] = Some(world.disk(client).backup()),
            10 => {
                world.crash(client, Crash::Kill);
                if let Some(backup) = backups[who].take().filter(|_| !restored[who]) {
                    world.replace_disk(client, backup);
                    restored[who] = true;
                }
                world.start(client, Continuity::Proven);
            }
            11 => {
                world.crash(server, Crash::Kill);
                world.start(server, Continuity::Proven);
            }
            12 => world.disk(client).fail_next(1),
            _ => world.run_for(MILLISECOND * dice.below(120) as u32),
        }
    }
    let nodes = [server, clients[0], clients[1]];
    for node in nodes {
        world.disk(node).fail_next(0);
        assert!(world.start(node, Continuity::Proven));
    }
    let kept: BTreeSet<_> = nodes.iter().flat_map(|node| bodies_on(world.disk(*node), &doc())).collect();
    paths.iter().for_each(|path| world.mend(*path));
    let whole = |world: &World, node: NodeId| {
        let stored = world.disk(node).backup().open().expect("a copy has no holder").document(&doc());
        stored.expect("the disk works").aside.is_none()
    };
    let done = world.run_until(120 * SECOND, |world| {
        same_on_disks(world, &nodes, &doc()) && nodes.iter().all(|node| whole(world, *node))
    });
    assert!(done, "seed {seed}: not in step");
    world.run_for(5 * SECOND);
    converge(&mut world, &nodes, &doc(), 10 * SECOND);
    let mut all = set_on(world.disk(server), &doc());
    // What a client had of the other one, who came to mean something else by it, is its app's to decide about.
    clients.iter().for_each(|client| all.extend(orphans(&world, *client)));
    assert!(all.is_superset(&kept), "seed {seed}: lost {:?}", kept.difference(&all).collect::<Vec<_>>());
    clients.iter().map(|client| mended(&world, *client)).sum()
}

#[test]
fn restores_at_random_times_end_in_step_with_nothing_lost() {
    let mended: usize = (0..300).map(restores).sum();
    assert!(mended > 20, "{mended} resets: restores do lead to forks");
}
