//! Replicas with stores: their plans are texts too, they break no law, and the same seed does the same.

use antiphon_sim::plan::{PlanOf, Profile};
use antiphon_sim::run::run;
use antiphon_sim::stores::{Deed, StoreNode};

#[test]
fn no_plan_of_stores_breaks_a_law() {
    let mut ops = 0;
    for seed in 0..300 {
        let plan = Profile::varied(seed).plan::<StoreNode>(seed);
        let report = run::<StoreNode>(&plan);
        report.outcome.unwrap_or_else(|violation| panic!("seed {seed}: {violation}"));
        ops += report.ops;
    }
    assert!(ops > 2_000, "{ops} ops were written");
}

#[test]
fn the_same_plan_does_the_same() {
    for seed in 0..20 {
        let plan = Profile::varied(seed).plan::<StoreNode>(seed);
        assert_eq!(run::<StoreNode>(&plan), run::<StoreNode>(&plan));
    }
}

#[test]
fn what_is_printed_is_what_is_read() {
    for seed in 0..300 {
        let plan = Profile::varied(seed).plan::<StoreNode>(seed);
        assert_eq!(plan.to_string().parse::<PlanOf<StoreNode>>().expect("it was printed"), plan);
    }
    let text = "write notes a/b/c=5 a/b/d- a/b- a- /- :v=300B :v=-1 :v- :-";
    assert_eq!(text.parse::<Deed>().expect("a transaction").to_string(), text);
    for wrong in [
        "write notes",
        "write notes a/b=5",
        "write notes a//c=5",
        "write notes :a/b=5",
        "append notes 20B",
        "sweep notes",
    ] {
        assert!(wrong.parse::<Deed>().is_err(), "{wrong}");
    }
}
