//! In the built-in models no law is broken, as far as a debug build gets in a few seconds.

use antiphon_check::{Limits, catalogue};

#[test]
fn no_law_is_broken() {
    let limits = Limits { states: 4_000, ..Limits::default() };
    for case in catalogue() {
        match case.explore(&limits, &mut |_| {}) {
            Ok(report) => assert!(report.complete || report.states == limits.states, "{case:?}"),
            Err(violation) => panic!("{}/{}: {violation}", case.model, case.name),
        }
    }
}
