//! Histories that part are never mixed, whoever brings them.

mod common;

use antiphon::replica::Config;
use antiphon::storage::Continuity;
use antiphon_sim::World;
use antiphon_sim::world::{Crash, Medium};
use common::*;

#[test]
fn what_follows_another_history_is_not_taken_from_a_third() {
    let medium = Medium::reliable(MILLISECOND);
    let mut world = World::new(81);
    let [server, relay, original] = [(); 3].map(|()| world.add(Config::default()));
    [server, relay, original].into_iter().for_each(|node| world.open(node, &doc(), Default::default()));
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
    world.open(copy, &doc(), Default::default());
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
