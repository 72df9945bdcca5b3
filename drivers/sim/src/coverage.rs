//! What runs have reached, counted, so that what they have not is known too.

/// How often each thing on a list has happened.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Coverage {
    names: &'static [&'static str],
    counts: Vec<u64>,
}

impl Coverage {
    /// Nothing of this list has happened.
    pub fn of(names: &'static [&'static str]) -> Self {
        Self { names, counts: vec![0; names.len()] }
    }

    /// The thing at this place of the list has happened.
    pub fn reach(&mut self, place: usize) {
        self.counts[place] += 1;
    }

    /// Adds what another run has reached.
    pub fn add(&mut self, other: &Self) {
        if self.names.is_empty() {
            *self = Self::of(other.names);
        }
        self.counts.iter_mut().zip(&other.counts).for_each(|(count, more)| *count += more);
    }

    /// All that was counted, with how often it has happened.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.names.iter().copied().zip(self.counts.iter().copied())
    }

    /// What has never happened.
    pub fn holes(&self) -> Vec<&'static str> {
        self.counts().filter(|(_, count)| *count == 0).map(|(name, _)| name).collect()
    }
}
