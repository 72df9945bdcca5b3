//! Worlds of stores, driven by hand: short words for tests.

use antiphon::op::DocumentId;
use antiphon::replica::{Config, Input, Options};
use antiphon::storage::Continuity;
use antiphon::store::{BadSchema, Direction, Mirror, Schema, Transaction, WriteError};

use super::{Kept, StoreNode};
use crate::node::Node;
use crate::replica::Setup;
use crate::world::{NodeId, World};

/// What these words say of a store that is not there.
const NOT_THERE: &str = "the replica is up, and had the document open when it started";

impl World<StoreNode> {
    /// An empty world of replicas with stores, whose randomness all comes from `seed`.
    pub fn of_stores(seed: u64) -> Self {
        Self::of(seed)
    }

    /// A new replica with the store of a document, which is started.
    pub fn add_store(&mut self, document: &DocumentId, options: Options) -> NodeId {
        let documents = [(document.clone(), options)].into();
        let setup = Setup { config: Config::default(), documents, ..Setup::default() };
        let name = self.nodes().count() as u32;
        let node = self.place(name, StoreNode::disk(&setup), setup);
        self.start(node, Continuity::Proven);
        node
    }

    /// The store of a document that was open when its replica started, if that is up.
    pub fn mirror(&self, node: NodeId, document: &DocumentId) -> Option<&Mirror> {
        Some(self.process(node)?.app().kept(document)?.mirror())
    }

    /// The app of a replica does a transaction at `wall`, in milliseconds since 1970, whatever its clock shows.
    ///
    /// # Errors
    /// Those of `write` and of the commit.
    ///
    /// # Panics
    /// If the replica is down, or did not have the document open when it started.
    pub fn transact(
        &mut self,
        node: NodeId,
        document: &DocumentId,
        wall: u64,
        write: impl FnOnce(&mut Transaction<'_>) -> Result<(), WriteError>,
    ) -> Result<(), WriteError> {
        self.with_kept(node, document, |kept| (kept.write(wall, write), Vec::new()))
    }

    /// From now on things go this way between a store and its document, which is closed and opened again.
    ///
    /// # Panics
    /// As above.
    pub fn attach(&mut self, node: NodeId, document: &DocumentId, direction: Direction) {
        let options = self.setup_mut(node).documents.get(document).cloned().unwrap_or_default();
        self.with_kept(node, document, |kept| {
            kept.detach();
            kept.attach(direction);
            let (closed, opened) = (document.clone(), document.clone());
            ((), vec![Input::Close { document: closed }, Input::Open { document: opened, options }])
        });
    }

    /// From now on a schema binds what is written here.
    ///
    /// # Errors
    /// If the schema contradicts itself.
    ///
    /// # Panics
    /// As above.
    pub fn set_schema(&mut self, node: NodeId, document: &DocumentId, schema: Schema) -> Result<(), BadSchema> {
        self.with_kept(node, document, |kept| (kept.mirror.set_schema(Some(schema)), Vec::new()))
    }

    fn with_kept<T>(
        &mut self,
        node: NodeId,
        document: &DocumentId,
        act: impl FnOnce(&mut Kept) -> (T, Vec<Input>),
    ) -> T {
        let done = self.with_process(node, |now, process| {
            process.with_app(now, |stores| {
                let (done, mut wanted) = act(stores.kept.get_mut(document).expect(NOT_THERE));
                wanted.extend(stores.outgoing());
                (done, wanted)
            })
        });
        self.settle();
        done.expect(NOT_THERE)
    }
}
