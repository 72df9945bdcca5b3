//! Plans that once broke a law, made small and kept: they run for ever. `antiphon sim --plan FILE` runs one alone.

use std::fs;
use std::path::Path;

use antiphon_sim::plan::PlanOf;
use antiphon_sim::replica::WriterNode;
use antiphon_sim::run::run;

#[test]
fn plans_that_are_kept_break_no_law() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plans");
    let mut paths: Vec<_> = fs::read_dir(folder).expect("plans are kept").map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty());
    for path in paths {
        let name = path.display();
        let text = fs::read_to_string(&path).expect("a plan is a text");
        let plan: PlanOf<WriterNode> = text.parse().unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(plan.to_string().parse().as_ref(), Ok(&plan), "{name}: what is printed is what was read");
        run::<WriterNode>(&plan).outcome.unwrap_or_else(|violation| panic!("{name}: {violation}"));
    }
}
