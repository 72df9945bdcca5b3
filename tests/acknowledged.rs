//! The app hears that a peer holds its ops, however the link fares.

mod common;

use antiphon::replica::{Config, Event, Options};
use antiphon_sim::World;
use antiphon_sim::world::Medium;
use common::*;

#[test]
fn an_acknowledgement_that_a_cut_swallowed_is_made_up_for_when_the_link_is_back() {
    let mut world = World::new(1);
    let [writer, reader] = [(); 2].map(|()| world.add(Config::default()));
    for node in [writer, reader] {
        world.open(node, &doc(), Options::default());
    }
    let path = world.join(writer, reader, Medium::reliable(MILLISECOND * 10));
    world.run_for(SECOND);
    world.append(writer, &doc(), "is it there?");
    // Long enough for the op to get there, too short for the acknowledgement to come back.
    world.run_for(MILLISECOND * 15);
    world.cut(path, true);
    let acknowledged = |event: &Event| matches!(event, Event::Acknowledged { position: 1, .. });
    assert_eq!(bodies_on(world.disk(reader), &doc()).len(), 1);
    assert_eq!(count(&world, writer, acknowledged), 0);
    world.mend(path);
    world.run_for(SECOND);
    assert_eq!(count(&world, writer, acknowledged), 1);
}
