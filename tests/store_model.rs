//! A store against a naive one, which keeps every change it has heard of and computes all from them.

mod stores;

use std::collections::{BTreeMap, BTreeSet};

use antiphon::store::{ClientId, Stamp, Store, Value};
use quickcheck::{Gen, QuickCheck};
use stores::{Group, REPLICAS, Step, WALL, Write};

type Path = (Option<(&'static str, &'static str)>, &'static str);

/// What a change is of.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Target {
    Content(Path, Option<Value>),
    Row(&'static str, &'static str),
    Table(&'static str),
    Tables,
    Values,
}

impl Target {
    /// Whether nothing of the other is left if this came later.
    fn is_over(&self, other: &Self) -> bool {
        match (self, other) {
            (_, Self::Content(path, _)) if self.is_above(*path) => true,
            (Self::Content(path, _), Self::Content(other, _)) => path == other,
            (Self::Tables, Self::Table(_) | Self::Row(..)) => true,
            (Self::Table(table), Self::Row(other, _)) => table == other,
            _ => self == other,
        }
    }

    /// Whether it is a deletion above a path.
    fn is_above(&self, path: Path) -> bool {
        match (self, path.0) {
            (Self::Content(..), _) => false,
            (Self::Values, place) => place.is_none(),
            (Self::Row(table, row), place) => place == Some((table, row)),
            (Self::Table(table), place) => place.is_some_and(|place| place.0 == *table),
            (Self::Tables, place) => place.is_some(),
        }
    }
}

/// All changes that one replica has heard of, and its clock.
#[derive(Clone, Debug, Default)]
struct Naive {
    changes: BTreeSet<(Stamp, Target)>,
    last: Option<Stamp>,
}

impl Naive {
    fn contents(&self) -> BTreeMap<Path, Value> {
        let mut latest: BTreeMap<Path, (Stamp, Option<Value>)> = BTreeMap::new();
        for (stamp, target) in &self.changes {
            let Target::Content(path, content) = target else { continue };
            let entry = (*stamp, content.clone());
            let known = latest.entry(*path).or_insert_with(|| entry.clone());
            *known = known.clone().max(entry);
        }
        let is_kept = |path: Path, stamp: Stamp| {
            !self.changes.iter().any(|(deleted, target)| target.is_above(path) && stamp < *deleted)
        };
        let live = latest.into_iter().filter(|(path, (stamp, _))| is_kept(*path, *stamp));
        live.filter_map(|(path, (_, content))| Some((path, content?))).collect()
    }

    /// The newest stamp of what `concerns` says.
    fn newest(&self, concerns: impl Fn(&Target) -> bool) -> Stamp {
        self.changes.iter().filter(|(_, target)| concerns(target)).map(|(stamp, _)| *stamp).max().unwrap_or_default()
    }

    fn write(&mut self, base: Stamp, client: ClientId, fresh: bool, write: &Write) {
        let after = |newest: Stamp, may_be_own: bool| {
            if newest < base || may_be_own && fresh && newest == base { base } else { newest.after(client).unwrap() }
        };
        let contents = self.contents();
        let mut set = |path: Path, content: &Option<Value>| {
            if contents.get(&path) == content.as_ref() {
                return;
            }
            let concerns =
                |target: &Target| target.is_above(path) || matches!(target, Target::Content(p, _) if *p == path);
            let stamp = after(self.newest(concerns), true);
            self.changes
                .retain(|(known, target)| !(*known == stamp && matches!(target, Target::Content(p, _) if *p == path)));
            self.changes.insert((stamp, Target::Content(path, content.clone())));
        };
        let target = match write {
            Write::Cell(table, row, cell, content) => return set((Some((table, row)), cell), content),
            Write::Value(value, content) => return set((None, value), content),
            Write::Row(table, row) => Target::Row(table, row),
            Write::Table(table) => Target::Table(table),
            Write::Tables => Target::Tables,
            Write::Values => Target::Values,
        };
        if !contents.keys().any(|path| target.is_above(*path)) {
            return;
        }
        // What it may delete, and what is above it.
        let concerns = |other: &Target| match (other, &target) {
            (Target::Content(path, _), _) => target.is_above(*path),
            (Target::Tables, Target::Values) | (Target::Values, _) => *other == target,
            (_, Target::Values) => false,
            (Target::Tables, _) | (_, Target::Tables) => true,
            (Target::Table(a) | Target::Row(a, _), Target::Table(b)) | (Target::Table(a), Target::Row(b, _)) => a == b,
            (Target::Row(..), _) => *other == target,
            (Target::Table(_), Target::Content(..)) => false,
        };
        let stamp = after(self.newest(concerns), false);
        self.changes.insert((stamp, target));
    }

    fn commit(&mut self, wall: u64, client: ClientId, writes: &[Write]) {
        let base = match self.last {
            Some(last) if last.time() >= wall => last.after(client).unwrap(),
            _ => Stamp::new(wall, 0, client).unwrap(),
        };
        let fresh = self.newest(|_| true) < base;
        let before = (self.contents(), self.clone());
        writes.iter().for_each(|write| self.write(base, client, fresh, write));
        if self.contents() == before.0 {
            *self = before.1;
        } else {
            let own: BTreeSet<_> = self.changes.difference(&before.1.changes).cloned().collect();
            self.last = Some(base);
            own.iter().for_each(|(stamp, _)| self.see(*stamp, wall));
            // What a transaction writes or deletes over, though it wrote it itself, nobody hears of.
            let is_untold = |(stamp, target): &(Stamp, Target)| {
                own.iter().any(|(later, other)| later > stamp && other.is_over(target))
            };
            self.changes.retain(|change| !own.contains(change) || !is_untold(change));
        }
    }

    fn see(&mut self, stamp: Stamp, wall: u64) {
        if stamp.time() <= wall + 300_000 {
            self.last = self.last.max(Some(stamp));
        }
    }

    fn hear(&mut self, others: &Self, wall: u64) {
        for change in &others.changes {
            if self.changes.insert(change.clone()) {
                self.see(change.0, wall);
            }
        }
    }
}

fn contents(store: &Store) -> BTreeMap<(Option<(String, String)>, String), Value> {
    let mut all = BTreeMap::new();
    for table in store.tables() {
        for row in table.rows() {
            let place = (table.name().to_owned(), row.name().to_owned());
            all.extend(row.cells().map(|(cell, value)| ((Some(place.clone()), cell.to_owned()), value.clone())));
        }
    }
    all.extend(store.values().map(|(name, value)| ((None, name.to_owned()), value.clone())));
    all
}

fn owned(path: Path) -> (Option<(String, String)>, String) {
    (path.0.map(|(table, row)| (table.to_owned(), row.to_owned())), path.1.to_owned())
}

/// What each replica committed, and what of that others heard, as the group keeps it for stores.
fn agrees(steps: Vec<Step>) -> bool {
    let mut group = Group::new(false);
    let mut naive = vec![Naive::default(); REPLICAS];
    // What each committed, as it was known after each commit.
    let mut own = vec![Naive::default(); REPLICAS];
    for step in &steps {
        group.step(step);
        match step {
            Step::Commit { replica, writes, .. } => {
                let before = naive[*replica].changes.clone();
                naive[*replica].commit(group.wall(*replica), ClientId::new(*replica as u32), writes);
                own[*replica].changes.extend(naive[*replica].changes.difference(&before).cloned());
            }
            Step::Hear { replica, of } => {
                let others = own[*of].clone();
                naive[*replica].hear(&others, group.wall(*replica));
            }
        }
        for (store, naive) in group.stores.iter().zip(&naive) {
            let expected: BTreeMap<_, _> =
                naive.contents().into_iter().map(|(path, value)| (owned(path), value)).collect();
            assert_eq!(contents(store), expected, "after {step:?}");
        }
    }
    true
}

#[test]
fn a_store_agrees_with_the_naive_one() {
    QuickCheck::new().rng(Gen::new(40)).tests(800).quickcheck(agrees as fn(Vec<Step>) -> bool);
}

#[test]
fn the_names_are_in_order() {
    let mut store = stores::store(1);
    for name in ["b", "", "a", "é", "B", "__proto__"] {
        stores::set(&mut store, WALL, name, name, name, 1);
        for other in ["y", "x"] {
            stores::set(&mut store, WALL, name, other, name, 1);
            stores::set(&mut store, WALL, name, name, other, 1);
        }
    }
    let sorted = |names: Vec<&str>| names.is_sorted() && names.len() >= 3;
    assert!(sorted(store.tables().map(|table| table.name()).collect()));
    for table in store.tables() {
        assert_eq!(table.row_count(), 3);
        assert!(sorted(table.rows().map(|row| row.name()).collect()));
        assert!(sorted(store.row(table.name(), table.name()).unwrap().cells().map(|(name, _)| name).collect()));
    }
}
