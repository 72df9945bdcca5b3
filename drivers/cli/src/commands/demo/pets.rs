//! The pets: two stores that are in step by themselves, on replicas that are at work already.

use antiphon::op::DocumentId;
use antiphon::store::{Pattern, Store, WriteError};
use antiphon_node::Node;
use antiphon_synchronizer::{Options, SharedStore, Synchronizer};
use async_channel::Receiver;
use futures_lite::future::zip;
use serde::Serialize;
use serde_json::Value as Tree;

use super::PATIENCE;
use crate::commands::get;
use crate::error::Failure;
use crate::host;
use crate::output::Output;
use crate::stores::Part;

/// A store of a replica.
struct Pet {
    name: &'static str,
    store: SharedStore,
    synchronizer: Synchronizer,
}

/// What the stores hold, which is the same.
#[derive(Debug, Serialize)]
pub(super) struct Pets {
    content: Tree,
    /// The hash of its content, of each store.
    hashes: [(&'static str, String); 2],
    #[serde(skip)]
    store: Store,
}

impl Pets {
    pub(super) fn tell(&self, output: &mut Output) -> Result<(), Failure> {
        output.line("")?;
        get::tell(output, &self.store, Part::Everything)?;
        output.line("")?;
        self.hashes.iter().try_for_each(|(name, hash)| output.line(format!("store {name}: content hash {hash}")))
    }
}

/// Lets a store of each replica write about its own pet, and both learn of the other.
pub(super) async fn meet(nodes: [&Node; 2]) -> Result<Pets, Failure> {
    let document = "pets".parse().expect("a valid name");
    let [fido, felix] = [("fido", nodes[0]), ("felix", nodes[1])].map(|(name, node)| Pet::new(name, node, &document));
    let met = async {
        let (here, there) = zip(fido.synchronizer.start(), felix.synchronizer.start()).await;
        here.and(there)?;
        let heard = [fido.listen("felix"), felix.listen("fido")];
        fido.write(&[("species", "dog"), ("sound", "woof")])?;
        felix.write(&[("species", "cat"), ("colour", "black")])?;
        for heard in heard {
            // The sender is the store's, which outlives this.
            let _ = heard.recv().await;
        }
        let (here, there) = zip(fido.synchronizer.in_step(), felix.synchronizer.in_step()).await;
        Ok::<_, Failure>(here.and(there)?)
    };
    if host::within(PATIENCE, met).await.transpose()?.is_none() {
        let remedy = "try again on a machine that is less busy";
        return Err(Failure::deadline(format!("the stores are not in step after {PATIENCE} s"), remedy));
    }
    let [store, other] = [&fido, &felix].map(|pet| pet.store.read(Store::clone));
    let [hash, of_other] = [&store, &other].map(|store| format!("{:032x}", store.content_hash()));
    if hash != of_other || store.to_json() != other.to_json() {
        let error = format!("not in step: the content of store fido has the hash {hash}, that of felix {of_other}");
        return Err(Failure::new("not_in_step", error, "report this as a fault of antiphon"));
    }
    let hashes = [(fido.name, hash), (felix.name, of_other)];
    Ok(Pets { content: store.to_json(), hashes, store })
}

impl Pet {
    fn new(name: &'static str, node: &Node, document: &DocumentId) -> Self {
        let store = SharedStore::default();
        let synchronizer = Synchronizer::new(&store, node, document, Options::default());
        Self { name, store, synchronizer }
    }

    /// Sets cells of its own row, all at once.
    fn write(&self, cells: &[(&str, &str)]) -> Result<(), Failure> {
        let written = self.store.write::<_, WriteError>(|transaction| {
            cells.iter().try_for_each(|(cell, content)| transaction.set_cell("pets", self.name, cell, *content))
        });
        written.map_err(|error| Failure::new("misuse", error.to_string(), "report this as a fault of antiphon"))
    }

    /// Something comes when the other's row does.
    fn listen(&self, other: &str) -> Receiver<()> {
        let (sender, heard) = async_channel::bounded(1);
        self.store.listen(Pattern::cells(Some("pets"), Some(other), None), move |_| {
            let _ = sender.try_send(()); // once is enough
        });
        heard
    }
}
