//! Who is sent ops has nothing new to say but how far its own log has grown with them: that costs no frames of its own.

mod common;

use antiphon::replica::{Config, Event, Options};
use antiphon::wire::Message;
use antiphon_sim::World;
use antiphon_sim::world::{Medium, Sent};
use common::*;

#[test]
fn what_was_only_skipped_is_acknowledged_along_with_ops_that_go_anyway() {
    let mut world = World::new(1);
    let [server, writer, reader] = [(); 3].map(|()| world.add(Config::default()));
    for node in [writer, reader] {
        world.open(node, &doc(), Options::default());
    }
    world.join(writer, server, Medium::reliable(MILLISECOND));
    let path = world.join(reader, server, Medium::reliable(MILLISECOND));
    world.run_for(SECOND);
    world.record();
    for _ in 0..500 {
        world.append(writer, &doc(), "an op");
        world.run_for(MILLISECOND * 2);
    }
    let to_reader = |sent: &&Sent| sent.from == server && sent.path == path;
    let sent: Vec<_> = world.transcript().iter().filter(to_reader).collect();
    let (mut ops, mut acks) = (Vec::new(), Vec::new());
    for sent in sent {
        match Message::decode(&sent.frame).expect("replicas send what can be decoded") {
            Message::Changes(_) => ops.push(sent.at),
            Message::Ack(_) => acks.push(sent.at),
            _ => {}
        }
    }
    assert_eq!(ops.len(), 500);
    assert!(acks.len() > 20, "the reader hears how far its log is known: {acks:?}");
    let alone: Vec<_> = acks.iter().filter(|at| !ops.contains(at)).collect();
    assert!(alone.is_empty(), "acknowledgements that went by themselves: {alone:?}");

    let in_step = |event: &Event| matches!(event, Event::InStep { .. });
    let before = count(&world, reader, in_step);
    world.run_for(MILLISECOND * 200);
    assert_eq!(count(&world, reader, in_step), before + 1, "when it is quiet, both come to know that they are in step");
}
