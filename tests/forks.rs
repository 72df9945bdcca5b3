//! Forks: two histories of one author are reported at both ends and mended by a reset from the authority, whoever else
//! takes part; own ops are appended anew, and nobody loses any.

mod common;

use std::sync::Arc;

use antiphon::heads::Head;
use antiphon::op::{Body, Cursor, Entry, Op, OpId, ReplicaId};
use antiphon::replica::{Authority, Config, Input, Options, Salvage};
use antiphon::storage::{Batch, Continuity, Storage, Transaction};
use antiphon_sim::World;
use antiphon_sim::world::{Crash, Medium};
use bytes::Bytes;
use common::restored::*;
use common::*;

#[test]
fn a_fork_is_reported_at_both_ends_and_mended_from_the_authority() {
    for medium in [medium(), datagrams()] {
        for count in 1..=NEW.len() {
            for restarted in [false, true] {
                let new = &NEW[..count];
                let mut this = Restored::forked(medium, options(Authority::Upstream), new);
                let Restored { world, client, server, path, .. } = &mut this;
                let (client, server) = (*client, *server);
                let before = world.id(client);
                if restarted {
                    // Own ops are no longer in memory when the peer's word of them comes.
                    world.stop(client);
                    world.start(client, Continuity::Proven);
                }
                // A server that writes slowly is still about what the old session sent when the new one is opened.
                world.set_storage_delay(server, 60 * MILLISECOND);
                world.mend(*path);
                this.ends_with(new);
                let world = &mut this.world;
                world.run_for(10 * SECOND);
                assert!(forks(world, client) > 0, "{count} {restarted}: the client is told");
                assert!(forks(world, server) > 0, "{count} {restarted}: the server is told");
                assert_eq!(mended(world, client), 1);
                assert!(orphans(world, client).is_empty() && orphans(world, server).is_empty());
                assert_eq!(renewals(world, server) + mended(world, server), 0, "the authority stays as it is");
                let old: Vec<_> = entries_on(world.disk(server), &doc())
                    .into_iter()
                    .filter(|entry| entry.op.id.author == before)
                    .collect();
                assert_eq!(old.len(), 4, "{count} {restarted}: nothing of one history was taken for more of the other");
                let me = world.id(client);
                let mine: Vec<_> = entries_on(world.disk(client), &doc())
                    .into_iter()
                    .filter(|entry| entry.op.id.author == me)
                    .collect();
                let anew: Vec<_> = mine.iter().filter_map(|entry| entry.op.body.bytes().cloned()).collect();
                assert_eq!(anew, new, "{count} {restarted}: own ops are appended anew, in their order");
                world.append(client, &doc(), "and on");
                this.ends_with(&[new, &["and on"]].concat());
            }
        }
    }
}

#[test]
fn a_fork_shows_even_where_neither_end_has_anything_to_send() {
    for medium in [medium(), datagrams()] {
        let mut world = World::new(8);
        let nodes = [(); 2].map(|()| world.add(config()));
        let author = ReplicaId([9; 16]);
        let path = world.join(nodes[0], nodes[1], medium);
        for (node, other, body) in [(nodes[0], nodes[1], "one"), (nodes[1], nodes[0], "other")] {
            world.crash(node, Crash::Kill);
            let peer = identity(world.disk(other));
            let op = Op { id: OpId { author, seq: 1 }, body: Body::Bytes(Bytes::from(body)) };
            let chain = Head::NONE.then(op.body.hash()).chain;
            let batch = Batch {
                document: doc(),
                position: 0,
                entries: vec![Entry { op, chain, origin: None }],
                cursors: vec![(peer.replica, Cursor { timeline: peer.opens.current(), position: 1 })],
                timeline: None,
                salvaged: None,
            };
            world.disk(node).open().expect("nobody uses it").write(&Transaction::Append(Arc::new(batch))).unwrap();
        }
        for node in nodes {
            world.start(node, Continuity::Proven);
            world.open(node, &doc(), Options::default());
        }
        world.mend(path);
        world.run_for(5 * SECOND);
        assert!(nodes.iter().all(|node| forks(&world, *node) == 1), "each end believes that the other holds all");
    }
}

#[test]
fn own_ops_of_a_fork_are_handed_over_where_the_app_wants_that() {
    let options = Options { salvage: Salvage::HandOver, ..options(Authority::Upstream) };
    let mut this = Restored::forked(medium(), options, &NEW);
    this.world.mend(this.path);
    this.world.run_for(10 * SECOND);
    this.ends_with(&[]);
    assert_eq!(mended(&this.world, this.client), 1);
    assert_eq!(orphans(&this.world, this.client), NEW.map(|body| body.as_bytes().to_vec()));
}

#[test]
fn without_an_authority_a_fork_stays_until_the_app_resets() {
    for medium in [medium(), datagrams()] {
        let mut this = Restored::forked(medium, options(Authority::Nobody), &NEW[..2]);
        this.world.mend(this.path);
        this.world.run_for(10 * SECOND);
        assert!(forks(&this.world, this.client) > 0 && forks(&this.world, this.server) > 0);
        assert!(!same_on_disks(&this.world, &this.nodes(), &doc()));
        assert_eq!(mended(&this.world, this.client), 0);
        // What has nothing to do with the fork goes on.
        this.world.append(this.client, &doc(), "from the client");
        this.world.append(this.server, &doc(), "from the server");
        this.world.run_for(SECOND);
        for node in this.nodes() {
            let there = set_on(this.world.disk(node), &doc());
            assert!(there.is_superset(&bodies(&["from the client", "from the server"])));
        }
        let quiet = this.world.transcript().len();
        this.world.run_for(5 * SECOND);
        assert!(this.world.transcript().len() - quiet < 20, "a fork that is known is not talked about all the time");
        this.reset();
        this.ends_with(&["w", "x", "from the client", "from the server"]);
        this.world.run_for(SECOND);
        assert_eq!(mended(&this.world, this.client), 1);
    }
}

#[test]
fn a_reset_of_what_is_whole_changes_nothing() {
    let mut this = Restored::new(medium(), options(Authority::Nobody));
    for _ in 0..2 {
        this.reset();
        this.ends_with(&[]);
        this.world.run_for(SECOND);
    }
    assert_eq!(mended(&this.world, this.client), 2);
    assert_eq!(forks(&this.world, this.client), 0);
}

// -------------------------------------------------------------------------------------------- third replicas

#[test]
fn ops_of_others_that_only_the_mended_replica_holds_survive() {
    let mut this = Restored::forked(medium(), options(Authority::Upstream), &[]);
    let Restored { world, client, server, path, .. } = &mut this;
    let (client, server, path) = (*client, *server, *path);
    let friend = world.add(config());
    world.open(friend, &doc(), options(Authority::Nobody));
    let beside = world.join(friend, client, Medium::reliable(MILLISECOND));
    (0..5).for_each(|number| world.append(friend, &doc(), format!("friend's {number}")));
    // As many as were lost: the fork shows in the peer's Open, before anything else could bring the friend's ops over.
    ["x", "y"].iter().for_each(|body| world.append(client, &doc(), *body));
    converge(world, &[client, friend], &doc(), SECOND);
    let author = world.id(friend);
    world.cut(beside, true);
    world.crash(friend, Crash::Kill);
    world.mend(path);
    let relayed = ["friend's 0", "friend's 1", "friend's 2", "friend's 3", "friend's 4"];
    this.ends_with(&[&relayed[..], &["x", "y"]].concat());
    let world = &mut this.world;
    assert_eq!(mended(world, client), 1);
    let on_server = entries_on(world.disk(server), &doc());
    let seqs: Vec<_> =
        on_server.iter().filter(|entry| entry.op.id.author == author).map(|entry| entry.op.id.seq).collect();
    assert_eq!(seqs, [1, 2, 3, 4, 5], "they are still their author's");
    // The friend has the forked op of before: it is told, and loses nothing of its own.
    world.start(friend, Continuity::Proven);
    world.mend(beside);
    world.run_for(10 * SECOND);
    assert!(forks(world, friend) > 0 && orphans(world, friend).is_empty());
    let link = world.link(beside, friend).expect("they are connected");
    world.input(friend, Input::Reset { document: doc(), link });
    world.settle();
    converge(world, &[client, server, friend], &doc(), 10 * SECOND);
    world.run_for(SECOND);
    assert_eq!(mended(world, friend), 1);
    let orphans = orphans(world, friend);
    assert_eq!(orphans, [b"x", b"y"], "they have their place under another id, and were not the friend's to move");
    world.append(friend, &doc(), "and on");
    converge(world, &[client, server, friend], &doc(), SECOND);
}

#[test]
fn a_third_replica_that_is_there_all_the_time_brings_nothing_back_and_loses_nothing() {
    for latency in 0..8 {
        for delay in [0, 1, 4] {
            let mut this = Restored::forked(medium(), options(Authority::Upstream), &NEW[..2]);
            let Restored { world, client, path, .. } = &mut this;
            let friend = world.add(config());
            world.open(friend, &doc(), options(Authority::Nobody));
            world.join(friend, *client, Medium::reliable(MILLISECOND * latency));
            let said: Vec<_> = (0..12).map(|number| format!("friend's {number}")).collect();
            said.iter().for_each(|body| world.append(friend, &doc(), body.clone()));
            converge(world, &[*client, friend], &doc(), SECOND);
            world.run_for(SECOND);
            world.set_storage_delay(*client, MILLISECOND * delay);
            world.mend(*path);
            // The friend holds the forked ops, and offers them whenever it may.
            this.ends_with(&NEW[..2].iter().copied().chain(said.iter().map(String::as_str)).collect::<Vec<_>>());
            assert_eq!(mended(&this.world, this.client), 1, "latency {latency}, delay {delay}");
            assert!(orphans(&this.world, this.client).is_empty());
        }
    }
}

#[test]
fn what_is_put_aside_and_comes_from_the_authority_at_the_same_time_is_there_once() {
    for delay in [4, 9] {
        for wait in 0..200 {
            let mut this = Restored::forked(medium(), options(Authority::Upstream), &[]);
            let Restored { world, client, server, path, .. } = &mut this;
            let friend = world.add(config());
            world.open(friend, &doc(), options(Authority::Nobody));
            let beside = world.join(friend, *client, Medium::reliable(MILLISECOND));
            let said: Vec<_> = (0..12).map(|number| format!("friend's {number}")).collect();
            for (number, body) in said.iter().enumerate() {
                world.append(friend, &doc(), body.clone());
                converge(world, &[*client, friend], &doc(), SECOND);
                NEW.get(number).into_iter().for_each(|body| world.append(*client, &doc(), *body));
            }
            world.run_for(SECOND);
            world.cut(beside, true);
            world.set_storage_delay(*client, MILLISECOND * delay);
            world.mend(*path);
            world.run_for(MILLISECOND * 2 * wait);
            // While the client goes through what it has put aside, the authority hears of it from the friend.
            world.join(friend, *server, Medium::reliable(MILLISECOND));
            this.ends_with(&NEW.iter().copied().chain(said.iter().map(String::as_str)).collect::<Vec<_>>());
            assert_eq!(mended(&this.world, this.client), 1, "wait {wait}, delay {delay}");
            assert!(orphans(&this.world, this.client).is_empty(), "wait {wait}, delay {delay}");
        }
    }
}

#[test]
fn a_replica_at_the_authority_sees_nothing_of_a_fork_elsewhere() {
    let mut this = Restored::forked(medium(), options(Authority::Upstream), &NEW);
    let Restored { world, client, server, path, .. } = &mut this;
    let (client, server) = (*client, *server);
    let witness = world.add(config());
    world.open(witness, &doc(), options(Authority::Upstream));
    world.join(witness, server, medium());
    world.append(witness, &doc(), "witness");
    world.run_for(SECOND);
    world.mend(*path);
    this.ends_with(&[&NEW[..], &["witness"]].concat());
    let world = &mut this.world;
    converge(world, &[client, server, witness], &doc(), SECOND);
    assert_eq!((forks(world, witness), renewals(world, witness), mended(world, witness)), (0, 0, 0));
}

#[test]
fn what_follows_another_history_is_not_taken_from_a_third() {
    let medium = Medium::reliable(MILLISECOND);
    let mut world = World::new(81);
    let [server, relay, original] = [(); 3].map(|()| world.add(Config::default()));
    [server, relay, original].into_iter().for_each(|node| world.open(node, &doc(), Options::default()));
    let to_server = world.join(relay, server, medium);
    let home = world.join(original, server, medium);
    world.append(original, &doc(), "first");
    converge(&mut world, &[server, relay, original], &doc(), SECOND);

    // A copy of the original that looks as if it were that: only the relay meets it, while it is cut off.
    let backup = world.disk(original).backup();
    world.cut(to_server, true);
    world.append(original, &doc(), "second");
    world.run_for(SECOND);
    world.cut(home, true);
    world.crash(original, Crash::Kill);
    let copy = world.add_on(backup, Config::default(), Continuity::Proven);
    world.open(copy, &doc(), Options::default());
    let aside = world.join(copy, relay, medium);
    world.append(copy, &doc(), "another second");
    world.append(copy, &doc(), "a third");
    world.run_for(SECOND);
    assert_eq!(bodies_on(world.disk(relay), &doc()).len(), 3);
    world.cut(aside, true);

    // Now the relay brings the server what follows "another second".
    world.mend(to_server);
    world.run_for(5 * SECOND);
    assert!(forks(&world, server) > 0 && forks(&world, relay) > 0, "both are told");
    assert_eq!(bodies_on(world.disk(server), &doc()), [b"first".to_vec(), b"second".to_vec()]);
    // What others write goes on.
    world.append(server, &doc(), "of the server");
    world.append(relay, &doc(), "of the relay");
    world.run_for(SECOND);
    for node in [server, relay] {
        let bodies = bodies_on(world.disk(node), &doc());
        assert!(
            bodies.contains(&b"of the server".to_vec()) && bodies.contains(&b"of the relay".to_vec()),
            "{bodies:?}"
        );
    }
}

#[test]
fn what_follows_one_history_never_follows_the_other() {
    for medium in [Medium::reliable(MILLISECOND), Medium { upstream: false, ..datagrams() }] {
        for shared in [Vec::new(), vec!["before"]] {
            let mut world = World::new(82);
            let [one, first, second] = [(); 3].map(|()| world.add(config()));
            [one, first, second].into_iter().for_each(|node| world.open(node, &doc(), Options::default()));
            let home = world.join(one, first, medium);
            let between = world.join(first, second, medium);
            shared.iter().for_each(|body| world.append(one, &doc(), *body));
            converge(&mut world, &[one, first, second], &doc(), SECOND);
            world.cut(home, true);
            // Two copies of one replica write, each with a relay of its own, and neither hears of the other.
            let backup = world.disk(one).backup();
            world.crash(one, Crash::Kill);
            world.start(one, Continuity::Proven);
            let other = world.add_on(backup, config(), Continuity::Proven);
            world.open(other, &doc(), Options::default());
            world.cut(between, true);
            world.mend(home);
            world.join(other, second, medium);
            world.append(one, &doc(), "one 1");
            world.append(other, &doc(), "other 1");
            world.run_for(SECOND);
            world.mend(between);
            world.run_for(SECOND);
            assert!(forks(&world, first) > 0 && forks(&world, second) > 0, "both relays are told");
            // What the one writes next comes live; and again when the relays have met anew, and started anew.
            let write = |world: &mut World, number: u8| {
                world.append(one, &doc(), format!("one {number}"));
                world.append(other, &doc(), format!("other {number}"));
                world.append(first, &doc(), format!("first's {number}"));
                world.append(second, &doc(), format!("second's {number}"));
                world.run_for(SECOND);
            };
            write(&mut world, 2);
            world.cut(between, true);
            world.mend(between);
            write(&mut world, 3);
            world.crash(second, Crash::Kill);
            world.append(one, &doc(), "one meanwhile");
            world.run_for(SECOND);
            world.start(second, Continuity::Proven);
            write(&mut world, 4);

            for (relay, own, others) in [(first, "one", "other"), (second, "other", "one")] {
                let bodies = bodies_on(world.disk(relay), &doc());
                let of = |name: &str| bodies.iter().filter(|body| body.starts_with(name.as_bytes())).count();
                assert!(of(&format!("{own} ")) >= 4, "its own copy goes on");
                assert_eq!(of(&format!("{others} ")), 0, "{own}: {bodies:?}");
                assert_eq!((of("first's "), of("second's ")), (3, 3), "and so do others");
            }
        }
    }
}
