//! Checks that a [`Storage`] keeps what [antiphon] relies on.
//!
//! Say how to make, reopen and crash yours in a [`Harness`], and let [`all`] loose on it in a test:
//!
//! ```ignore
//! #[test]
//! fn conforms() {
//!     antiphon_conformance::all(&mut MyHarness::default());
//! }
//! ```
//!
//! Each case is a function of its own too, for finding out what is wrong. All are the same in every run.

mod crash;
mod groups;
mod holder;
mod index;
mod logs;
mod model;
mod resets;
mod snapshots;

use std::any::Any;
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};

use antiphon::storage::Storage;

pub use crash::{
    a_compaction_is_synced, a_crash_amid_snapshots_leaves_a_prefix, a_crash_leaves_a_prefix, documents_are_independent,
    random_writes_add_up,
};
pub use groups::{a_refused_write_leaves_its_group, groups_agree_with_single_requests};
pub use holder::{
    a_broken_continuity_renews, a_second_holder_is_refused, identity_is_empty_at_first, identity_is_kept,
    opens_are_counted,
};
pub use index::{chains_are_found, comparing_agrees_with_a_scan, requests_agree_with_methods};
pub use logs::{
    cursors_are_kept_without_entries, cursors_come_with_their_entries, documents_are_listed_in_order,
    entries_come_back, entries_that_are_not_next_are_refused, reads_keep_to_their_limit, state_is_kept,
    the_wrong_position_is_refused, the_wrong_timeline_is_refused, unknown_documents_are_empty,
};
pub use resets::{a_reset_puts_aside, resets_keep_the_order, salvage_ends_in_a_drop};
pub use snapshots::{
    a_compaction_drops_what_is_below, a_reset_drops_snapshots, an_install_starts_anew, chains_at_the_horizon_are_found,
    heads_at_the_horizon_are_compared, snapshots_are_read_in_pieces, spoiled_snapshots_are_refused, staging_goes_on,
    wrong_horizons_are_refused,
};

/// How to get hold of the storage under test.
pub trait Harness {
    /// The storage under test.
    type Storage: Storage;

    /// A storage that was never used.
    fn fresh(&mut self) -> Self::Storage;

    /// Closes the storage in order, and opens it again.
    fn reopen(&mut self, storage: Self::Storage) -> Self::Storage;

    /// Crashes the storage and opens what is left: at least what was synced, as compactions are by themselves. The more it
    /// differs from call to call how much else is left, the better. `None`: it can't be crashed.
    fn crash(&mut self, storage: Self::Storage) -> Option<Self::Storage> {
        drop(storage);
        None
    }

    /// Tries to open a second time what is open as `storage`. `Some(true)`: that was refused. `None`: this can't be
    /// tried.
    fn second_is_refused(&mut self, storage: &mut Self::Storage) -> Option<bool> {
        let _ = storage;
        None
    }
}

/// One thing that a storage must do.
#[derive(Debug)]
pub struct Case<H> {
    /// The name of its function.
    pub name: &'static str,
    /// The function. It panics if the storage does not do it.
    pub run: fn(&mut H),
}

/// Every case, the simple ones first.
pub fn cases<H: Harness>() -> Vec<Case<H>> {
    macro_rules! cases {
        ($($name:ident),* $(,)?) => { vec![$(Case { name: stringify!($name), run: $name::<H> }),*] };
    }
    cases![
        identity_is_empty_at_first,
        identity_is_kept,
        opens_are_counted,
        a_broken_continuity_renews,
        a_second_holder_is_refused,
        unknown_documents_are_empty,
        documents_are_listed_in_order,
        entries_come_back,
        reads_keep_to_their_limit,
        state_is_kept,
        cursors_are_kept_without_entries,
        cursors_come_with_their_entries,
        the_wrong_position_is_refused,
        the_wrong_timeline_is_refused,
        entries_that_are_not_next_are_refused,
        chains_are_found,
        comparing_agrees_with_a_scan,
        requests_agree_with_methods,
        a_refused_write_leaves_its_group,
        groups_agree_with_single_requests,
        a_reset_puts_aside,
        resets_keep_the_order,
        salvage_ends_in_a_drop,
        a_compaction_drops_what_is_below,
        snapshots_are_read_in_pieces,
        chains_at_the_horizon_are_found,
        heads_at_the_horizon_are_compared,
        wrong_horizons_are_refused,
        staging_goes_on,
        spoiled_snapshots_are_refused,
        an_install_starts_anew,
        a_reset_drops_snapshots,
        documents_are_independent,
        random_writes_add_up,
        a_crash_leaves_a_prefix,
        a_crash_amid_snapshots_leaves_a_prefix,
        a_compaction_is_synced,
    ]
}

/// Runs every case.
///
/// # Panics
/// With the name of the first case that fails, and why it does.
pub fn all<H: Harness>(harness: &mut H) {
    for case in cases::<H>() {
        // The harness is not used again after a panic.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (case.run)(harness))) {
            panic!("{}: {}", case.name, message(&*panic));
        }
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked")
}

/// The value of an operation that a working storage can't fail.
#[track_caller]
fn done<T, E: Display>(result: Result<T, E>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("the storage failed: {error}"),
    }
}
