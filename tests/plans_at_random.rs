//! The laws as properties of plans: quickcheck draws plans, and where one breaks a law it shrinks the plan, not the seed.

use std::cell::RefCell;

use antiphon_sim::laws::{Law, Laws, Scene};
use antiphon_sim::plan::{PlanOf, Profile, smaller};
use antiphon_sim::replica::WriterNode;
use antiphon_sim::run::{run, run_with};
use antiphon_sim::world::{Down, Happening};
use quickcheck::{Arbitrary, Gen, QuickCheck, TestResult};

#[derive(Clone, Debug)]
struct Planned(PlanOf<WriterNode>);

impl Arbitrary for Planned {
    fn arbitrary(g: &mut Gen) -> Self {
        let seed = u64::arbitrary(g);
        Self(Profile::varied(seed).plan::<WriterNode>(seed))
    }

    fn shrink(&self) -> Box<dyn Iterator<Item = Self>> {
        Box::new(smaller::<WriterNode>(&self.0).into_iter().map(Self))
    }
}

/// The same plans each time.
fn plans() -> Gen {
    Gen::from_size_and_seed(100, 4)
}

#[test]
fn no_plan_breaks_a_law() {
    fn property(Planned(plan): Planned) -> TestResult {
        match run::<WriterNode>(&plan).outcome {
            Ok(()) => TestResult::passed(),
            Err(violation) => TestResult::error(format!("{violation}, in the plan\n\n{plan}")),
        }
    }
    QuickCheck::new().rng(plans()).tests(200).quickcheck(property as fn(Planned) -> TestResult);
}

/// No law: what is broken whenever a node is killed that holds something.
struct NobodyIsKilled;

impl Law<WriterNode> for NobodyIsKilled {
    fn name(&self) -> &'static str {
        "nobody is killed"
    }

    fn check(&mut self, scene: &Scene<'_, WriterNode>, happening: &Happening<WriterNode>) -> Result<(), String> {
        match happening {
            Happening::Down { node, how: Down::Killed, .. } => {
                let tail = scene.ledger.copy(*node, 0).map_or(0, |copy| copy.tail());
                if tail > 0 { Err(format!("{node} was killed, with {tail} ops")) } else { Ok(()) }
            }
            _ => Ok(()),
        }
    }
}

thread_local! {
    /// The plans that broke it, in the order in which they were run.
    static BROKE_IT: RefCell<Vec<PlanOf<WriterNode>>> = const { RefCell::new(Vec::new()) };
}

#[test]
fn a_plan_that_breaks_one_shrinks_to_what_matters_and_keeps_its_seed() {
    fn property(Planned(plan): Planned) -> bool {
        let holds = run_with::<WriterNode>(&plan, Laws::these(vec![Box::new(NobodyIsKilled)])).outcome.is_ok();
        if !holds {
            BROKE_IT.with_borrow_mut(|plans| plans.push(plan));
        }
        holds
    }
    let tested =
        QuickCheck::new().rng(plans()).tests(1_000).max_tests(1_000).quicktest(property as fn(Planned) -> bool);
    assert!(tested.is_err(), "some plan kills a node");
    let plans = BROKE_IT.take();
    let (first, last) = (plans.first().expect("one broke it"), plans.last().expect("one broke it"));
    assert!(first.nodes.len() > 1 && first.steps.len() > 2, "quickcheck began with\n\n{first}");
    // One that appends and is killed, or one to which another has sent what it appended.
    assert!(last.nodes.len() <= 2 && last.paths.len() < last.nodes.len(), "what is left is\n\n{last}");
    assert_eq!(last.steps.len(), 2, "an append and a kill; what is left is\n\n{last}");
    assert!(last.frames.is_empty(), "what is left is\n\n{last}");
    assert_eq!(last.seed, first.seed);
}
