//! The laws of stores: what they hold is what their documents hold, and what they tell is what they hold.

use std::collections::BTreeMap;

use antiphon::storage::Storage;
use antiphon::store::{ClientId, Store};

use super::kept::held;
use super::{Kept, StoreNode};
use crate::laws::{Law, Scene};
use crate::replica::logs::DocumentNumber;
use crate::world::{Happening, NodeId};

type View<'a> = Scene<'a, StoreNode>;
type Seen = BTreeMap<(NodeId, DocumentNumber), u64>;

/// The stores of a node to which something has happened that `seen` does not know yet.
fn moved<'a>(
    seen: &mut Seen,
    scene: &View<'a>,
    happening: &Happening<StoreNode>,
) -> Vec<(NodeId, DocumentNumber, &'a antiphon::op::DocumentId, &'a Kept)> {
    let Happening::Settled { node, .. } = happening else { return Vec::new() };
    let Some(process) = scene.world.process(*node) else { return Vec::new() };
    let mut moved = Vec::new();
    for (document, kept) in process.app().all() {
        let Some(number) = scene.ledger.document(document) else { continue };
        if seen.insert((*node, number), kept.moves()) != Some(kept.moves()) {
            moved.push((*node, number, document, kept));
        }
    }
    moved
}

/// What a store holds, as much as people read.
fn text(store: &Store) -> String {
    const CHARS_MAX: usize = 1_000;
    store.to_json().to_string().chars().take(CHARS_MAX).collect()
}

/// A store that is equal to its document holds what the transactions on the disk come to, and what it has written that is
/// not there yet, and nothing else.
#[derive(Default)]
pub struct Fold {
    seen: Seen,
    folded: BTreeMap<(NodeId, DocumentNumber), Folded>,
}

/// What a document comes to, up to a position.
struct Folded {
    epoch: u32,
    position: u64,
    store: Store,
}

impl Folded {
    fn of(epoch: u32) -> Self {
        Self { epoch, position: 0, store: Store::new(ClientId::default()) }
    }

    fn apply(&mut self, body: &[u8]) -> Result<(), String> {
        self.store.apply(body, 0).map(|_| ()).map_err(|error| format!("what is on a disk is no transaction: {error}"))
    }

    /// Folds what is on a disk below a position.
    fn catch_up(
        &mut self,
        storage: &mut impl Storage,
        document: &antiphon::op::DocumentId,
        to: u64,
    ) -> Result<(), String> {
        let broken = |_| String::from("a disk can't be read");
        let stored = storage.document(document).map_err(broken)?;
        if let Some(id) = stored.snapshot.filter(|_| self.position < stored.horizon) {
            let body = storage.snapshot(document, id, id.head_bytes.into(), u64::MAX).map_err(broken)?;
            self.apply(&body)?;
            self.position = stored.horizon;
        }
        let entries = storage.read(document, self.position, u64::MAX).map_err(broken)?;
        for entry in entries.iter().take(to.saturating_sub(self.position) as usize) {
            entry.op.body.bytes().map_or(Ok(()), |body| self.apply(body))?;
        }
        self.position = to;
        Ok(())
    }
}

impl Law<StoreNode> for Fold {
    fn name(&self) -> &'static str {
        "fold"
    }

    fn check(&mut self, scene: &View<'_>, happening: &Happening<StoreNode>) -> Result<(), String> {
        for (node, number, document, kept) in moved(&mut self.seen, scene, happening) {
            let mirror = kept.mirror();
            let Some(copy) = scene.ledger.copy(node, number) else { continue };
            let behind = copy.tail() < kept.position() || scene.ledger.is_deceived(node, number);
            if behind || mirror.is_reading() || !kept.is_joined() {
                continue; // it does not know yet what its disk has lost, or stands by itself
            }
            let folded = self.folded.entry((node, number)).or_insert_with(|| Folded::of(copy.epoch));
            if folded.epoch != copy.epoch || folded.position > kept.position() {
                *folded = Folded::of(copy.epoch);
            }
            let read =
                scene.world.disk_of(node).read(|storage| Ok(folded.catch_up(storage, document, kept.position())));
            read.unwrap_or_else(|| Err("its disk can't be read".to_owned()))
                .map_err(|what| format!("{node}: {what}"))?;
            let mut expected = folded.store.clone();
            for body in kept.unseen() {
                let _ =
                    expected.apply(&body, 0).map_err(|error| format!("{node} has written what is no op: {error}"))?;
            }
            if mirror.store().snapshot() != expected.snapshot() {
                let [got, expected] = [mirror.store(), &expected].map(text);
                return Err(format!("{node} holds {got} of {document}, and its disk comes to {expected}"));
            }
            if mirror.store().content_hash() != expected.content_hash() {
                return Err(format!("{node} holds of {document} what its disk comes to, and has another hash of it"));
            }
        }
        Ok(())
    }

    fn at_rest(&mut self, scene: &View<'_>) -> Result<(), String> {
        for node in scene.world.nodes() {
            let process = scene.world.process(node).into_iter();
            for (document, kept) in process.flat_map(|process| process.app().all()) {
                let open = scene.ledger.standing().open(node, document).is_some();
                let unseen = kept.mirror().unseen();
                if open && (kept.mirror().is_reading() || unseen > 0) {
                    return Err(format!("{node} has {unseen} transactions of {document} that never got there"));
                }
            }
        }
        Ok(())
    }
}

/// Who was told of changes only shows what the store holds, and each change begins with what was shown.
#[derive(Default)]
pub struct Shows {
    seen: Seen,
}

impl Law<StoreNode> for Shows {
    fn name(&self) -> &'static str {
        "shows"
    }

    fn check(&mut self, scene: &View<'_>, happening: &Happening<StoreNode>) -> Result<(), String> {
        for (node, _, document, kept) in moved(&mut self.seen, scene, happening) {
            let (shown, misfit) = kept.shown();
            if let Some(misfit) = misfit {
                return Err(format!("{node}, {document}: {misfit}"));
            }
            let held = held(kept.mirror().store());
            if *shown != held {
                return Err(format!(
                    "{node} was told of changes of {document} that come to {shown:?}; it holds {held:?}"
                ));
            }
        }
        Ok(())
    }
}

/// At the end, stores of documents that hold the same are the same, to the last byte of their snapshots.
pub struct SameContent;

impl Law<StoreNode> for SameContent {
    fn name(&self) -> &'static str {
        "same content"
    }

    fn check(&mut self, _: &View<'_>, _: &Happening<StoreNode>) -> Result<(), String> {
        Ok(()) // what is under way is settled in the end
    }

    fn at_rest(&mut self, scene: &View<'_>) -> Result<(), String> {
        let mut first = BTreeMap::new();
        for node in scene.world.nodes() {
            let process = scene.world.process(node).into_iter();
            for (document, kept) in process.flat_map(|process| process.app().all()) {
                let Some(number) = scene.ledger.document(document) else { continue };
                let Some(copy) = scene.ledger.copy(node, number) else { continue };
                let open = scene.ledger.standing().open(node, document);
                // A reader keeps what it writes to itself.
                if open.is_none() || !kept.is_joined() || scene.ledger.is_deceived(node, number) {
                    continue;
                }
                let store = kept.mirror().store();
                let (other, known) = first.entry((number, copy.digest, copy.content)).or_insert((node, store));
                if known.content_hash() != store.content_hash() || known.snapshot() != store.snapshot() {
                    let [known, store] = [known, store].map(text);
                    return Err(format!("{other} and {node} hold the same of {document}: {known} and {store}"));
                }
            }
        }
        Ok(())
    }
}
