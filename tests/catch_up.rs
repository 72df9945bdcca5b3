//! Two replicas that were apart catch up: by cursor, by heads, with no, one and many authors, in many documents.

mod common;

use antiphon::replica::{Config, Options};
use antiphon_sim::World;
use antiphon_sim::world::Medium;
use common::*;

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
