//! What a transaction changed, and who wants to know.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::row::Name;
use super::value::Value;

/// One cell whose content changed. These are contents as they are stored, whatever a schema makes of them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CellChange {
    /// The table.
    pub table: Arc<str>,
    /// The row.
    pub row: Arc<str>,
    /// The cell.
    pub cell: Arc<str>,
    /// What it was. `None`: it was not there.
    pub old: Option<Value>,
    /// What it is. `None`: it is not there.
    pub new: Option<Value>,
}

impl CellChange {
    /// The table, the row and the cell.
    pub fn path(&self) -> (&str, &str, &str) {
        (&self.table, &self.row, &self.cell)
    }
}

/// One value whose content changed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ValueChange {
    /// The value's name.
    pub value: Arc<str>,
    /// What it was. `None`: it was not there.
    pub old: Option<Value>,
    /// What it is. `None`: it is not there.
    pub new: Option<Value>,
}

/// What one transaction, or one op of a peer, changed: each cell and each value at most once, from what it was before to
/// what it is after, in the order of their names.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Changes {
    /// The cells, by table, row and cell.
    pub cells: Vec<CellChange>,
    /// The values.
    pub values: Vec<ValueChange>,
}

impl Changes {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty() && self.values.is_empty()
    }
}

/// Which changes a listener is told of.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Pattern {
    /// All.
    Everything,
    /// Those of cells of this table, row and name; `None` stands for any.
    Cells(Option<Name>, Option<Name>, Option<Name>),
    /// Those of the value of this name; `None` stands for any.
    Values(Option<Name>),
}

impl Pattern {
    /// Changes of cells of this table, row and name; `None` stands for any.
    pub fn cells(table: Option<&str>, row: Option<&str>, cell: Option<&str>) -> Self {
        Self::Cells(table.map(Name::from), row.map(Name::from), cell.map(Name::from))
    }

    /// Changes of the value of this name; `None` stands for any.
    pub fn values(value: Option<&str>) -> Self {
        Self::Values(value.map(Name::from))
    }

    fn is_of_cell(&self, change: &CellChange) -> bool {
        match self {
            Self::Everything => true,
            Self::Cells(table, row, cell) => {
                fits(table, &change.table) && fits(row, &change.row) && fits(cell, &change.cell)
            }
            Self::Values(_) => false,
        }
    }

    fn is_of_value(&self, change: &ValueChange) -> bool {
        match self {
            Self::Everything => true,
            Self::Values(value) => fits(value, &change.value),
            Self::Cells(..) => false,
        }
    }
}

fn fits(wanted: &Option<Name>, name: &Name) -> bool {
    wanted.as_ref().is_none_or(|wanted| wanted == name)
}

/// Which listener, among those of one [`Listeners`]. Never given twice.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ListenerId(u64);

/// Who wants to know what. `L` is whatever the host tells things to: a closure, a channel, a number.
///
/// A store does not know its listeners: a transaction returns its [`Changes`], and [`tell`](Self::tell) brings them to
/// those whom they are for. So it is the host who decides when, and a listener may write to the store again.
#[derive(Clone, Debug)]
pub struct Listeners<L> {
    given: u64,
    all: Vec<(ListenerId, Pattern, L)>,
}

impl<L> Listeners<L> {
    /// Nobody.
    pub const fn new() -> Self {
        Self { given: 0, all: Vec::new() }
    }

    /// One more, who is told after those before.
    pub fn add(&mut self, pattern: Pattern, listener: L) -> ListenerId {
        let id = ListenerId(self.given);
        self.given += 1;
        self.all.push((id, pattern, listener));
        id
    }

    /// One less. Returns it, unless it is gone already.
    pub fn remove(&mut self, id: ListenerId) -> Option<L> {
        let index = self.all.binary_search_by_key(&id, |(id, ..)| *id).ok()?;
        Some(self.all.remove(index).2)
    }

    /// Calls `told` once for each listener for whom there are changes, with those.
    pub fn tell(&mut self, changes: &Changes, mut told: impl FnMut(&mut L, Changes)) {
        for (_, pattern, listener) in &mut self.all {
            let cells = changes.cells.iter().filter(|change| pattern.is_of_cell(change)).cloned().collect();
            let values = changes.values.iter().filter(|change| pattern.is_of_value(change)).cloned().collect();
            let changes = Changes { cells, values };
            if !changes.is_empty() {
                told(listener, changes);
            }
        }
    }
}

impl<L> Default for Listeners<L> {
    fn default() -> Self {
        Self::new()
    }
}
