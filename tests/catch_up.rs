//! Two replicas that were apart catch up: by cursor, by heads, with no, one and many authors, in many documents; and
//! what is held is not sent again.

mod common;

use antiphon::op::DocumentId;
use antiphon::replica::{self, Config, Event, Options};
use antiphon::storage::Continuity;
use antiphon::timeline::TIMELINES_MAX;
use antiphon::wire::Message;
use antiphon_sim::World;
use antiphon_sim::world::{Crash, Medium, NodeId, PathId};
use common::*;

fn media() -> [Medium; 2] {
    [Medium::reliable(20 * MILLISECOND), Medium::datagram(FAULTLESS)]
}

/// Two replicas on these disks, with the document open, that were never connected.
fn world_on(disks: [antiphon_memory::Disk; 2]) -> (World, Vec<NodeId>) {
    let mut world = World::new(1);
    let nodes: Vec<_> =
        disks.into_iter().map(|disk| world.add_on(disk, Config::default(), Continuity::Proven)).collect();
    nodes.iter().for_each(|node| world.open(*node, &doc(), Options::default()));
    world.record();
    (world, nodes)
}

/// Two replicas in step on a path of this medium, with `ops` ops of a hundred bytes by each.
fn in_step(medium: Medium, ops: usize) -> (World, Vec<NodeId>, PathId) {
    let (mut world, nodes) = world(1, 2);
    world.record();
    let path = world.join(nodes[0], nodes[1], medium);
    for op in 0..ops {
        for node in &nodes {
            world.append(*node, &doc(), format!("{node:?} {op:080}"));
        }
    }
    converge(&mut world, &nodes, &doc(), 10 * SECOND);
    world.run_for(SECOND);
    assert!(nodes.iter().all(|node| in_steps(&world, *node) > 0));
    (world, nodes, path)
}

/// The traffic of both ends since the transcript was so long.
fn both(world: &World, since: usize, nodes: &[NodeId], path: PathId, medium: Medium) -> [Traffic; 2] {
    [0, 1].map(|side| traffic(world, since, nodes[side], path, medium))
}

fn restart(world: &mut World, node: NodeId) {
    world.crash(node, Crash::Kill);
    world.start(node, Continuity::Proven);
}

#[test]
fn ops_of_both_sides_reach_the_other() {
    let (mut world, nodes) = world(1, 2);
    world.append(nodes[0], &doc(), "a");
    world.append(nodes[1], &doc(), "b");
    world.join(nodes[0], nodes[1], Medium::reliable(10 * MILLISECOND));
    converge(&mut world, &nodes, &doc(), SECOND);
    assert_eq!(set_on(world.disk(nodes[0]), &doc()).len(), 2);
    world.run_for(SECOND);
    assert!(nodes.iter().all(|node| in_steps(&world, *node) == 1), "both were told once that they are in step");
    world.append(nodes[0], &doc(), "c");
    converge(&mut world, &nodes, &doc(), SECOND);
}

// -------------------------------------------------------------------------------------------- by cursor

#[test]
fn after_a_reconnect_only_what_is_new_is_sent() {
    for medium in media() {
        let (mut world, nodes, path) = in_step(medium, 300);
        world.cut(path, true);
        for node in &nodes {
            (0..3).for_each(|op| world.append(*node, &doc(), format!("{node:?} apart {op}")));
        }
        let since = world.transcript().len();
        world.mend(path);
        converge(&mut world, &nodes, &doc(), SECOND);
        world.run_for(SECOND);
        for traffic in both(&world, since, &nodes, path, medium) {
            assert_eq!(traffic.ops, 3, "what the other holds is not sent again");
            assert_eq!((traffic.count("Heads"), traffic.count("Resume")), (0, 0), "both Opens tell where to start");
            assert!(traffic.bytes < 700, "{} bytes", traffic.bytes);
        }
    }
}

#[test]
fn after_a_restart_the_cursor_on_the_timeline_before_counts() {
    for medium in media() {
        for down in 0..2 {
            let (mut world, nodes, path) = in_step(medium, 300);
            world.cut(path, true);
            world.append(nodes[0], &doc(), "0 before");
            world.append(nodes[1], &doc(), "1 before");
            restart(&mut world, nodes[down]);
            world.append(nodes[0], &doc(), "0 after");
            world.append(nodes[1], &doc(), "1 after");
            let since = world.transcript().len();
            world.mend(path);
            converge(&mut world, &nodes, &doc(), SECOND);
            for traffic in both(&world, since, &nodes, path, medium) {
                assert_eq!(traffic.ops, 2);
                assert_eq!((traffic.count("Heads"), traffic.count("Resume")), (0, 0), "both Opens tell where to start");
            }
        }
    }
}

/// What both ends send to meet again, after one of them was restarted `times` times with an append before each.
fn after_restarts(medium: Medium, ops: usize, times: usize) -> [Traffic; 2] {
    let (mut world, nodes, path) = in_step(medium, ops);
    world.cut(path, true);
    for time in 0..times {
        world.append(nodes[0], &doc(), format!("open {time}"));
        restart(&mut world, nodes[0]);
    }
    let since = world.transcript().len();
    world.mend(path);
    converge(&mut world, &nodes, &doc(), SECOND);
    both(&world, since, &nodes, path, medium)
}

#[test]
fn after_several_restarts_the_sender_says_where_the_timeline_of_the_cursor_ended() {
    for medium in media() {
        let [sender, receiver] = after_restarts(medium, 300, 5);
        assert_eq!((sender.ops, receiver.ops), (5, 0));
        let said = sender.messages.iter().find_map(|message| match message {
            Message::Resume(resume) => Some(resume.from),
            _ => None,
        });
        assert_eq!(said, Some(Some(600)), "the position after what both had made when they were in step");
        assert_eq!(sender.count("Heads") + receiver.count("Heads"), 0);
    }
}

#[test]
fn a_timeline_that_is_no_longer_remembered_means_heads() {
    for medium in media() {
        let [sender, receiver] = after_restarts(medium, 100, TIMELINES_MAX + 2);
        assert_eq!((sender.ops, receiver.ops), (TIMELINES_MAX + 2, 0));
        let asks = sender
            .messages
            .iter()
            .filter(|message| matches!(message, Message::Resume(resume) if resume.from.is_none()));
        assert_eq!(asks.count(), 1);
        assert_eq!((sender.count("Heads"), receiver.count("Heads")), (0, 1), "only one direction needs them");
    }
}

// -------------------------------------------------------------------------------------------- by heads

/// What both ends send until they are in step, when one holds `more` ops of each author, and the other so many fewer.
fn by_heads(medium: Medium, authors: u64, more: u64, fewer: impl Fn(u64) -> u64) -> [Traffic; 2] {
    let (ahead, behind) =
        (disk_with(&doc(), authors, |_| more, 20), disk_with(&doc(), authors, |author| more - fewer(author), 20));
    let (mut world, nodes) = world_on([ahead, behind]);
    let path = world.join(nodes[0], nodes[1], medium);
    converge(&mut world, &nodes, &doc(), 10 * SECOND);
    world.run_for(SECOND);
    assert!(nodes.iter().all(|node| in_steps(&world, *node) == 1), "both were told once");
    assert_eq!(bodies_on(world.disk(nodes[1]), &doc()).len() as u64, authors * more);
    both(&world, 0, &nodes, path, medium)
}

#[test]
fn without_a_cursor_heads_tell_what_is_missing() {
    for medium in media() {
        // Of every other author more is missing, so that what is held and what is not take turns in the log.
        for (authors, more, fewer) in [(1, 100, [40, 0]), (3, 100, [1, 0]), (5000, 2, [0, 1])] {
            let [ahead, behind] = by_heads(medium, authors, more, |author| fewer[author as usize % 2]);
            let missing: u64 = (0..authors).map(|author| fewer[author as usize % 2]).sum();
            assert_eq!(ahead.ops as u64, missing, "no op goes that is held");
            assert_eq!(behind.ops, 0);
            let heads = |traffic: &Traffic| -> usize {
                let parts = traffic.messages.iter().filter_map(|message| match message {
                    Message::Heads(part) => Some(part.heads.len()),
                    _ => None,
                });
                parts.sum()
            };
            // Id, seq and chain: 25 bytes an author, in each direction.
            assert_eq!((heads(&ahead), heads(&behind)), (25 * authors as usize, 25 * authors as usize));
        }
    }
}

#[test]
fn a_replica_that_holds_nothing_needs_no_heads() {
    for medium in media() {
        for (authors, each) in [(1, 100), (5000, 1)] {
            let [full, empty] = by_heads(medium, authors, each, |_| each);
            assert_eq!((full.ops as u64, empty.ops), (authors * each, 0));
            assert_eq!((full.count("Heads"), empty.count("Heads")), (0, 0));
        }
    }
}

#[test]
fn two_replicas_that_hold_nothing_are_in_step_at_once() {
    for medium in media() {
        let (mut world, nodes) = world_on([0, 0].map(|authors| disk_with(&doc(), authors, |_| 0, 0)));
        let path = world.join(nodes[0], nodes[1], medium);
        world.run_for(SECOND);
        assert!(nodes.iter().all(|node| in_steps(&world, *node) == 1));
        for traffic in both(&world, 0, &nodes, path, medium) {
            assert_eq!((traffic.ops, traffic.count("Heads"), traffic.count("Ack")), (0, 0, 0));
        }
    }
}

// -------------------------------------------------------------------------------------------- in step

#[test]
fn equal_heads_send_nothing_and_opens_are_small_however_many_authors_there_are() {
    for medium in media() {
        for authors in [1, 10_000] {
            // First without cursors; then with them, after an op by each; then after a restart of one.
            let disk = disk_with(&doc(), authors, |_| 1, 20);
            let (mut world, nodes) = world_on([disk.backup(), disk]);
            let path = world.join(nodes[0], nodes[1], medium);
            for round in 0..3 {
                let since = if round == 0 { 0 } else { world.transcript().len() };
                let told: Vec<_> = nodes.iter().map(|node| in_steps(&world, *node)).collect();
                world.mend(path);
                world.run_for(SECOND);
                for (side, traffic) in both(&world, since, &nodes, path, medium).iter().enumerate() {
                    assert_eq!(in_steps(&world, nodes[side]) - told[side], 1);
                    assert_eq!((traffic.ops, traffic.count("Heads"), traffic.count("Changes")), (0, 0, 0));
                    let opens: Vec<_> = traffic.opens().collect();
                    assert_eq!(opens.len(), 1);
                    let bytes = Message::Open(opens[0].clone()).encode().len() - doc().name().len();
                    assert!(bytes <= 64, "round {round}: an Open of {bytes} bytes");
                    assert_eq!(opens[0].cursor.is_some(), round > 0);
                }
                world.append(nodes[0], &doc(), format!("by one in {round}"));
                world.append(nodes[1], &doc(), format!("by the other in {round}"));
                converge(&mut world, &nodes, &doc(), SECOND);
                world.run_for(SECOND);
                world.cut(path, true);
                if round == 1 {
                    restart(&mut world, nodes[0]);
                }
            }
        }
    }
}

// -------------------------------------------------------------------------------------------- many documents

#[test]
fn two_hundred_documents_at_once() {
    for medium in media() {
        let documents: Vec<_> = (0..200).map(|number| document(&format!("doc-{number}"))).collect();
        let mut world = World::new(1);
        world.record();
        let nodes: Vec<_> = (0..2).map(|_| world.add(Config::default())).collect();
        for (number, document) in documents.iter().enumerate() {
            // Some are opened by one end, some by the other, most by both; a peer that opens one is let in.
            let openers: &[usize] = if number % 10 == 0 {
                &[0]
            } else if number % 10 == 1 {
                &[1]
            } else {
                &[0, 1]
            };
            for side in openers {
                world.open(nodes[*side], document, Options::default());
                (0..5).for_each(|op| world.append(nodes[*side], document, format!("{side} {op}")));
            }
        }
        let path = world.join(nodes[0], nodes[1], medium);
        let start = world.now();
        for document in &documents {
            converge(&mut world, &nodes, document, 2 * SECOND);
        }
        // On datagrams 64 control messages are under way at a time.
        assert!(world.now().since(start) < SECOND, "{:?}", world.now().since(start));
        for (side, traffic) in both(&world, 0, &nodes, path, medium).iter().enumerate() {
            assert_eq!((traffic.opens().count(), traffic.ops), (200, 180 * 5), "by end {side}");
        }
        assert!(nodes.iter().all(|node| disconnects(&world, *node) == 0));
    }
}

#[test]
fn both_sides_open_the_same_document_at_once() {
    for medium in media() {
        // The Opens cross at all distances: the second comes before, with, and after the first arrives.
        for apart in [0, 1, 10, 19, 20, 21, 39, 40, 41, 100] {
            let mut world = World::new(apart);
            world.record();
            let nodes: Vec<_> = (0..2).map(|_| world.add(Config::default())).collect();
            let path = world.join(nodes[0], nodes[1], medium);
            world.run_for(SECOND);
            for node in &nodes {
                world.open(*node, &doc(), Options::default());
                world.append(*node, &doc(), format!("{node:?}"));
                world.run_for(MILLISECOND * apart as u32);
            }
            world.run_for(SECOND);
            assert_eq!(set_on(world.disk(nodes[0]), &doc()).len(), 2);
            assert!(same_on_disks(&world, &nodes, &doc()));
            for (side, traffic) in both(&world, 0, &nodes, path, medium).iter().enumerate() {
                assert_eq!((traffic.opens().count(), traffic.ops), (1, 1), "{apart} ms apart, by end {side}");
            }
            assert!(nodes.iter().all(|node| in_steps(&world, *node) >= 1 && disconnects(&world, *node) == 0));
        }
    }
}

// -------------------------------------------------------------------------------------------- close and reopen

fn close(world: &mut World, node: NodeId, document: &DocumentId) {
    world.input(node, replica::Input::Close { document: document.clone() });
    world.settle();
}

#[test]
fn a_document_is_closed_and_opened_again_while_frames_are_in_flight() {
    for medium in media() {
        for closer in [&[0][..], &[1], &[0, 1]] {
            let (mut world, nodes, _) = in_step(medium, 3);
            for round in 0..60u32 {
                for node in &nodes {
                    (0..3).for_each(|op| world.append(*node, &doc(), format!("{node:?} {round} {op}")));
                }
                world.run_for(MILLISECOND * (round % 45));
                for (index, side) in closer.iter().enumerate() {
                    world.run_for(MILLISECOND * (index as u32 * (round % 7) * 5));
                    close(&mut world, nodes[*side], &doc());
                }
                world.run_for(MILLISECOND * (round * 7 % 31));
                closer.iter().for_each(|side| world.open(nodes[*side], &doc(), Options::default()));
            }
            converge(&mut world, &nodes, &doc(), 10 * SECOND);
            assert_eq!(set_on(world.disk(nodes[0]), &doc()).len(), 6 + 60 * 6);
            world.append(nodes[0], &doc(), "live again, one way");
            world.append(nodes[1], &doc(), "and the other");
            converge(&mut world, &nodes, &doc(), SECOND);
            for node in &nodes {
                assert_eq!(disconnects(&world, *node), 0, "a document that closes ends no session");
                let damaged = |event: &Event| matches!(event, Event::Closed { code, .. } if code.0 != 64);
                assert_eq!(count(&world, *node, damaged), 0, "DONE is the only reason");
            }
        }
    }
}

#[test]
fn a_closed_document_takes_no_more_and_the_others_go_on() {
    for medium in media() {
        let (mut world, nodes, _) = in_step(medium, 3);
        let other = document("other");
        nodes.iter().for_each(|node| world.open(*node, &other, Options::default()));
        world.run_for(SECOND);
        close(&mut world, nodes[0], &doc());
        world.run_for(SECOND);
        world.append(nodes[1], &doc(), "not for the one that closed it");
        world.append(nodes[1], &other, "for both");
        converge(&mut world, &nodes, &other, SECOND);
        assert_eq!(bodies_on(world.disk(nodes[0]), &doc()).len(), 6);
        world.open(nodes[0], &doc(), Options::default());
        converge(&mut world, &nodes, &doc(), SECOND);
    }
}

// -------------------------------------------------------------------------------------------- relays and echo

#[test]
fn ops_pass_a_chain_of_replicas_and_cross_each_path_once() {
    for medium in media() {
        let (mut world, nodes) = world(1, 4);
        world.record();
        let paths: Vec<_> = nodes.windows(2).map(|pair| world.join(pair[0], pair[1], medium)).collect();
        world.run_for(SECOND);
        for op in 0..50 {
            nodes.iter().for_each(|node| world.append(*node, &doc(), format!("{node:?} {op}")));
            world.run_for(MILLISECOND * 7);
        }
        converge(&mut world, &nodes, &doc(), 2 * SECOND);
        world.run_for(SECOND);
        for (index, path) in paths.iter().enumerate() {
            let left = traffic(&world, 0, nodes[index], *path, medium);
            let right = traffic(&world, 0, nodes[index + 1], *path, medium);
            // Whoever is on the left of a path made what goes right.
            assert_eq!((left.ops, right.ops), (50 * (index + 1), 50 * (3 - index)), "path {index}");
        }
        assert!(nodes.iter().all(|node| in_steps(&world, *node) > 0 && disconnects(&world, *node) == 0));
    }
}

#[test]
fn an_op_does_not_go_back_to_who_sent_it() {
    for medium in media() {
        let (mut world, nodes) = world(1, 2);
        world.record();
        let path = world.join(nodes[0], nodes[1], medium);
        world.run_for(SECOND);
        let since = world.transcript().len();
        for op in 0..100 {
            world.append(nodes[0], &doc(), format!("{op:0100}"));
            world.run_for(10 * MILLISECOND);
        }
        converge(&mut world, &nodes, &doc(), SECOND);
        world.run_for(SECOND);
        let [sender, receiver] = both(&world, since, &nodes, path, medium);
        assert_eq!((sender.ops, receiver.ops), (100, 0));
        assert_eq!(sender.count("Changes"), 100);
        // One acknowledgement each 25 ms at most, and the skip that tells of the echo goes with it.
        assert!(receiver.frames <= 1100 / 25 + 2, "{} frames", receiver.frames);
        assert_eq!(receiver.count("Changes"), 0);
        assert!(receiver.bytes < 40 * receiver.frames, "{} bytes in {} frames", receiver.bytes, receiver.frames);
    }
}

#[test]
fn an_op_does_not_go_back_after_a_crash_that_took_the_cursor_either() {
    for medium in media() {
        let (mut world, nodes) = world(1, 2);
        let path = world.join(nodes[0], nodes[1], medium);
        world.run_for(SECOND);
        world.append(nodes[1], &doc(), "with which a cursor is stored");
        converge(&mut world, &nodes, &doc(), SECOND);
        (0..100).for_each(|op| world.append(nodes[0], &doc(), format!("{op:0100}")));
        converge(&mut world, &nodes, &doc(), SECOND);
        world.run_for(SECOND);
        // That it need not have its own ops back it had only in memory; the stored cursor lies before them.
        world.crash(nodes[0], Crash::Kill);
        world.append(nodes[1], &doc(), "something new");
        world.record();
        world.start(nodes[0], Continuity::Proven);
        converge(&mut world, &nodes, &doc(), SECOND);
        let [sender, receiver] = both(&world, 0, &nodes, path, medium);
        assert_eq!((sender.ops, receiver.ops), (0, 1));
        assert_eq!(sender.count("Heads") + receiver.count("Heads"), 0);
    }
}
