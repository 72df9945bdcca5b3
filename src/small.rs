//! A map that has a few entries most of the time: a sorted list then, a tree beyond.
//!
//! Idle documents are many, and most have one author or two: a tree's first node alone has room for eleven.

use alloc::collections::{BTreeMap, btree_map};
use alloc::vec::Vec;
use core::hash::{Hash, Hasher};
use core::ops::Bound::{Excluded, Unbounded};

/// Entries of a list. With more, inserting into it would cost more than a tree does.
const FEW: usize = 16;

/// See the [module](self). Maps with the same entries are equal, however they came about.
#[derive(Clone, Debug)]
pub(crate) enum SmallMap<K, V> {
    Few(Vec<(K, V)>),
    Many(BTreeMap<K, V>),
}

impl<K: Copy + Ord, V> SmallMap<K, V> {
    pub(crate) const fn new() -> Self {
        Self::Few(Vec::new())
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Few(list) => list.len(),
            Self::Many(tree) => tree.len(),
        }
    }

    pub(crate) fn get(&self, key: K) -> Option<&V> {
        match self {
            Self::Few(list) => find(list, key).ok().map(|index| &list[index].1),
            Self::Many(tree) => tree.get(&key),
        }
    }

    pub(crate) fn get_mut(&mut self, key: K) -> Option<&mut V> {
        match self {
            Self::Few(list) => find(list, key).ok().map(|index| &mut list[index].1),
            Self::Many(tree) => tree.get_mut(&key),
        }
    }

    pub(crate) fn contains(&self, key: K) -> bool {
        self.get(key).is_some()
    }

    /// Sets a value, and returns the one before.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let list = match self {
            Self::Few(list) => list,
            Self::Many(tree) => return tree.insert(key, value),
        };
        match find(list, key) {
            Ok(index) => Some(core::mem::replace(&mut list[index].1, value)),
            Err(_) if list.len() == FEW => {
                let mut tree: BTreeMap<_, _> = core::mem::take(list).into_iter().collect();
                tree.insert(key, value);
                *self = Self::Many(tree);
                None
            }
            Err(index) => {
                if list.len() == list.capacity() {
                    list.reserve_exact(list.len().max(1)); // one author is the rule, not four
                }
                list.insert(index, (key, value));
                None
            }
        }
    }

    pub(crate) fn remove(&mut self, key: K) -> Option<V> {
        match self {
            Self::Few(list) => find(list, key).ok().map(|index| list.remove(index).1),
            Self::Many(tree) => tree.remove(&key),
        }
    }

    pub(crate) fn into_vec(self) -> Vec<(K, V)> {
        match self {
            Self::Few(list) => list,
            Self::Many(tree) => tree.into_iter().collect(),
        }
    }

    /// The entries after `key` (all, for `None`), in order.
    pub(crate) fn after(&self, key: Option<K>) -> After<'_, K, V> {
        match self {
            Self::Few(list) => {
                let first = key.map_or(0, |key| list.partition_point(|(other, _)| *other <= key));
                After::Few(list[first..].iter())
            }
            Self::Many(tree) => After::Many(tree.range((key.map_or(Unbounded, Excluded), Unbounded))),
        }
    }
}

fn find<K: Ord, V>(list: &[(K, V)], key: K) -> Result<usize, usize> {
    list.binary_search_by(|(other, _)| other.cmp(&key))
}

impl<K: Copy + Ord, V> Default for SmallMap<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Copy + Ord, V: PartialEq> PartialEq for SmallMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.after(None).eq(other.after(None))
    }
}

impl<K: Copy + Ord, V: Eq> Eq for SmallMap<K, V> {}

impl<K: Copy + Hash + Ord, V: Hash> Hash for SmallMap<K, V> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_usize(self.len());
        self.after(None).for_each(|entry| entry.hash(state));
    }
}

/// Entries in order.
#[derive(Debug)]
pub(crate) enum After<'a, K, V> {
    Few(core::slice::Iter<'a, (K, V)>),
    Many(btree_map::Range<'a, K, V>),
}

impl<'a, K, V> Iterator for After<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Few(list) => list.next().map(|(key, value)| (key, value)),
            Self::Many(tree) => tree.next(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_becomes_a_tree_is_the_same_map() {
        let mut tree = BTreeMap::new();
        let mut map = SmallMap::new();
        // Odd multipliers visit all residues, in no order.
        for step in 0..200u64 {
            let key = step * 37 % 64;
            if step % 5 == 4 {
                assert_eq!(map.remove(key), tree.remove(&key));
            } else {
                assert_eq!(map.insert(key, step), tree.insert(key, step));
            }
            assert_eq!(map.len(), tree.len());
            assert!(map.after(None).eq(tree.iter()));
            assert!(map.after(Some(20)).eq(tree.range(21..)));
            assert_eq!(map.get(key), tree.get(&key));
        }
        assert!(matches!(map, SmallMap::Many(_)));
        let keys: Vec<_> = tree.keys().copied().filter(|key| *key > 3).collect();
        let mut few = SmallMap::new();
        for key in keys {
            map.remove(key);
        }
        map.after(None).for_each(|(key, value)| _ = few.insert(*key, *value));
        assert!(matches!(few, SmallMap::Few(_)));
        assert!(few == map, "a tree that has shrunk is equal to a list");
        assert_eq!(crate::digest::state_digest(&few), crate::digest::state_digest(&map));
    }
}
