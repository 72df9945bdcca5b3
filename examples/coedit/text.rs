//! The document of one writer: a text of `yrs`. Its updates are what antiphon carries, as bytes that it knows nothing of.

use yrs::updates::decoder::Decode;
use yrs::{ClientID, Doc, GetString, OffsetKind, Options, ReadTxn, Text as _, TextRef, Transact, Update};

use crate::Failure;
use crate::trace::Patch;

pub(crate) struct Text {
    doc: Doc,
    text: TextRef,
    /// Some of its characters may be two units in UTF-16.
    wide: bool,
}

impl Text {
    /// Where two insert at the same place, yrs puts the smaller client id to the left: so did those who made the traces,
    /// with the agents' numbers.
    pub(crate) fn of(agent: u32, wide: bool) -> Self {
        let client_id = ClientID::new(u64::from(agent) + 1);
        let doc = Doc::with_options(Options { offset_kind: OffsetKind::Utf16, ..Options::with_client_id(client_id) });
        let text = doc.get_or_insert_text("text");
        Self { doc, text, wide }
    }

    /// Carries out the patches of one transaction, and returns it as an update; one that changes nothing is one too.
    pub(crate) fn edit(&mut self, patches: &[Patch]) -> Result<Vec<u8>, Failure> {
        let mut transaction = self.doc.transact_mut();
        for Patch(position, deleted, inserted) in patches {
            let range = range(&self.text, &transaction, self.wide, *position, *deleted);
            let beyond = || format!("has a patch that reaches beyond the text: [{position}, {deleted}, ...]");
            let (start, length) = range.ok_or_else(beyond)?;
            if length > 0 {
                self.text.remove_range(&mut transaction, start, length);
            }
            self.text.insert(&mut transaction, start, inserted);
        }
        Ok(transaction.encode_update_v1())
    }

    /// Takes in updates of others. Whatever they build on must be here, or among them and before them.
    pub(crate) fn integrate<'a>(&mut self, updates: impl IntoIterator<Item = &'a [u8]>) -> Result<(), Failure> {
        let mut transaction = self.doc.transact_mut();
        for update in updates {
            transaction.apply_update(Update::decode_v1(update)?)?;
        }
        if transaction.has_missing_updates() {
            return Err("an update builds on one that its transaction had not seen".into());
        }
        Ok(())
    }

    pub(crate) fn content(&self) -> String {
        self.text.get_string(&self.doc.transact())
    }
}

/// Start and length of a patch in UTF-16 units, which yrs counts in here, from those in code points; none if it reaches
/// beyond the text. In a long text of single units, most of the time would go into looking at it.
fn range<T: ReadTxn>(
    text: &TextRef,
    transaction: &T,
    wide: bool,
    position: usize,
    deleted: usize,
) -> Option<(u32, u32)> {
    if wide {
        let content = text.get_string(transaction);
        let (start, rest) = units(&content, position)?;
        return Some((start, units(rest, deleted)?.0));
    }
    let (start, length) = (u32::try_from(position).ok()?, u32::try_from(deleted).ok()?);
    (start.checked_add(length)? <= text.len(transaction)).then_some((start, length))
}

/// How many units the first so many code points have, and what comes after them.
fn units(content: &str, code_points: usize) -> Option<(u32, &str)> {
    let mut rest = content.chars();
    let mut units = 0;
    for _ in 0..code_points {
        units += rest.next()?.len_utf16();
    }
    Some((u32::try_from(units).ok()?, rest.as_str()))
}
