//! The disk of the models keeps what every storage must.

use antiphon_check::Disk;
use antiphon_conformance::Harness;

#[derive(Default)]
struct Values {
    /// How much of what is not synced the next crash leaves.
    keep: usize,
}

impl Harness for Values {
    type Storage = Disk;

    fn fresh(&mut self) -> Disk {
        Disk::unsynced()
    }

    fn reopen(&mut self, storage: Disk) -> Disk {
        storage
    }

    fn crash(&mut self, mut storage: Disk) -> Option<Disk> {
        storage.lose_power(self.keep);
        self.keep = (self.keep + 3) % 7;
        Some(storage)
    }
}

#[test]
fn conforms() {
    antiphon_conformance::all(&mut Values::default());
}

#[test]
fn nothing_is_lost_where_each_write_is_synced() {
    use antiphon::storage::{Continuity, Storage};
    let mut disk = Disk::new();
    let identity = disk.open(Continuity::Proven, &mut antiphon::rng::Rng::new(1)).expect("it is empty");
    disk.lose_power(0);
    assert_eq!(disk.identity(), Ok(Some(identity)));
}
