//! What all replicas' disks hold, kept from what was written on them and not from what the replicas say.

use std::collections::{BTreeMap, BTreeSet};

use antiphon::digest::{BodyHash, Chain};
use antiphon::heads::Head;
use antiphon::op::{DocumentId, Entry, ReplicaId, Timeline};
use antiphon::replica::Event;
use antiphon::storage::{Batch, Request, Storage, StoredDocument, Transaction};
use antiphon_memory::StorageError;

use super::reached::Reached;
use super::{App, ReplicaNode, Told};
use crate::coverage::Coverage;
use crate::laws::{Ledger, Violation};
use crate::world::{Happening, NodeId, World};

mod standing;

pub use standing::Standing;

/// The number of a document, in the order in which they were first seen.
pub type DocumentNumber = usize;
/// The number of an author, in the order in which they were first seen.
pub type AuthorNumber = usize;

/// Every replica's copies of every document.
#[derive(Debug, Default)]
pub struct Logs {
    documents: BTreeMap<DocumentId, DocumentNumber>,
    authors: BTreeMap<ReplicaId, AuthorNumber>,
    /// By node, then by document.
    copies: Vec<Vec<Copy>>,
    /// Whose they are.
    nodes: Vec<Option<NodeId>>,
    /// By document: what every author wrote, as it was first seen.
    histories: Vec<History>,
    change: Option<Change>,
    standing: Standing,
    reached: Reached,
    set_back: bool,
    was_deceived: bool,
    /// Whose disks have lost writes behind their backs, and of which documents they don't know it yet.
    deceived: BTreeMap<(NodeId, DocumentNumber), Deception>,
    /// What the snapshots that were made stand for.
    snapshots: BTreeMap<[u8; 16], Vec<(Item, ReplicaId)>>,
}

/// A replica's copy of a document.
#[derive(Clone, Debug, Default)]
pub struct Copy {
    /// The log, position by position.
    pub items: Vec<Item>,
    /// What a reset has put aside, place by place, until all of it is dealt with.
    pub aside: Vec<Item>,
    /// Where the ops of each author stand in the log: that of seq 1 first.
    pub positions: Vec<Vec<u32>>,
    /// How far this disk ever held each author.
    pub ever: Vec<u64>,
    /// The digest of the heads, and all that it ever was.
    pub digest: u64,
    digests: BTreeSet<u64>,
    /// The sum over all items.
    pub content: u64,
    /// The timelines in which it grew, and where each began.
    pub timelines: Vec<(Timeline, u64)>,
    /// How often the log became another that does not go on from what it was.
    pub epoch: u32,
    /// How many more items there are than positions: a snapshot that was installed has one position for all of its.
    shift: usize,
    /// How many of the items exist only in a snapshot: a reset does not put them aside.
    below: usize,
}

/// How far a replica is in finding out that its disk has lost writes of a document.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Deception {
    /// It has the document in memory as it was.
    Remembers,
    /// And the disk has failed it: when it loads the document again, it will know.
    Suspects,
    /// It had nothing to compare with when it loaded the document: it will never know, and gives positions out twice.
    Forgot,
}

/// An op in a log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Item {
    /// Its author.
    pub author: AuthorNumber,
    /// Its number among the author's.
    pub seq: u64,
    /// The author's chain up to it.
    pub chain: Chain,
    /// The hash of its body.
    pub body: BodyHash,
    /// Whether it came from a peer, or was put aside and is back, as opposed to being written here.
    pub foreign: bool,
}

/// What all authors wrote in one document.
#[derive(Debug, Default)]
pub struct History {
    /// By author, then by seq from 1: the chain there.
    chains: Vec<Vec<Chain>>,
    /// Authors of whom there are two histories.
    pub forked: BTreeSet<AuthorNumber>,
    /// What the heads of each digest hold.
    contents: BTreeMap<u64, u64>,
}

/// What the happening that was noted last did to a copy.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Change {
    /// Whose.
    pub node: NodeId,
    /// Of which document.
    pub document: DocumentNumber,
    /// The items from this position on are new.
    pub from: usize,
}

impl Copy {
    /// The highest seq of an author that is in the log.
    pub fn held(&self, author: AuthorNumber) -> u64 {
        self.positions.get(author).map_or(0, |positions| positions.len() as u64)
    }

    /// Where an op stands in the log.
    pub fn position(&self, author: AuthorNumber, seq: u64) -> Option<u32> {
        self.positions.get(author)?.get(usize::try_from(seq.checked_sub(1)?).ok()?).copied()
    }

    /// The highest seq of an author that this disk ever held.
    pub fn ever(&self, author: AuthorNumber) -> u64 {
        self.ever.get(author).copied().unwrap_or(0)
    }

    /// Whether the log ever had this digest.
    pub fn had_digest(&self, digest: u64) -> bool {
        digest == 0 || self.digests.contains(&digest)
    }

    /// The position after the last item.
    pub fn tail(&self) -> u64 {
        (self.items.len() - self.shift) as u64
    }

    /// Where the item at a position stands, or the first of those that a snapshot there stands for.
    pub fn index(&self, position: u64) -> usize {
        if position == 0 { 0 } else { position as usize + self.shift }
    }

    /// Where a timeline ended, if the copy grew in it: the current one at the tail.
    pub fn end_of(&self, timeline: Timeline) -> Option<u64> {
        let index = self.timelines.iter().rposition(|(known, _)| *known == timeline)?;
        Some(self.timelines.get(index + 1).map_or(self.tail(), |(_, begins)| *begins))
    }

    fn push(&mut self, item: Item, id: ReplicaId) {
        let authors = item.author + 1;
        self.positions.resize_with(self.positions.len().max(authors), Vec::new);
        self.ever.resize(self.ever.len().max(authors), 0);
        let before = self.positions[item.author].last().map_or(Head::NONE, |position| Head {
            seq: self.positions[item.author].len() as u64,
            chain: self.items[*position as usize].chain,
        });
        let weights = [before, Head { seq: item.seq, chain: item.chain }].map(|head| weight(id, head));
        self.digest = self.digest.wrapping_sub(weights[0]).wrapping_add(weights[1]);
        self.content = self.content.wrapping_add(item.content(id));
        self.positions[item.author].push(self.items.len() as u32);
        self.ever[item.author] = self.ever[item.author].max(item.seq);
        self.items.push(item);
    }
}

/// What a head adds to the digest of heads: what [`Heads`](antiphon::heads::Heads) make of it alone.
fn weight(author: ReplicaId, head: Head) -> u64 {
    let mut heads = antiphon::heads::Heads::new();
    heads.set(author, head);
    heads.digest()
}

impl Item {
    /// A number for the op with its body, whatever its chain.
    fn content(&self, author: ReplicaId) -> u64 {
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(&author.0);
        bytes[16..24].copy_from_slice(&self.seq.to_le_bytes());
        bytes[24..].copy_from_slice(&self.body.0.to_le_bytes());
        BodyHash::of(&bytes).0
    }
}

impl Logs {
    /// The number of a document, if it was ever seen.
    pub fn document(&self, document: &DocumentId) -> Option<DocumentNumber> {
        self.documents.get(document).copied()
    }

    /// The number of an author, if it was ever seen.
    pub fn author(&self, author: ReplicaId) -> Option<AuthorNumber> {
        self.authors.get(&author).copied()
    }

    /// A replica's copy of a document, if it has one.
    pub fn copy(&self, node: NodeId, document: DocumentNumber) -> Option<&Copy> {
        self.copies.get(node.index())?.get(document)
    }

    /// All copies of a document.
    pub fn copies(&self, document: DocumentNumber) -> impl Iterator<Item = (NodeId, &Copy)> {
        let copies = self.nodes.iter().zip(&self.copies);
        copies.filter_map(move |(node, copies)| Some(((*node)?, copies.get(document)?)))
    }

    /// What all authors wrote in a document.
    pub fn history(&self, document: DocumentNumber) -> &History {
        &self.histories[document]
    }

    /// How many documents there are.
    pub fn documents(&self) -> usize {
        self.histories.len()
    }

    /// What the happening that was noted last did to a copy.
    pub fn change(&self) -> Option<Change> {
        self.change
    }

    /// What replicas have open and have said of it.
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// Whether some disk was ever set back or copied, so that one author may have two histories.
    pub fn was_set_back(&self) -> bool {
        self.set_back
    }

    /// Whether some disk ever lost writes under a process.
    pub fn was_deceived(&self) -> bool {
        self.was_deceived
    }

    /// Whether some replica believes so of a document, or did when its process ended, and gives positions out twice.
    pub fn is_anyone_deceived(&self, document: DocumentNumber) -> bool {
        self.deceived.keys().any(|(_, of)| *of == document)
    }

    /// Whether two copies hold the same of all authors who have one history.
    fn agree_but_for_forks(&self, document: DocumentNumber, copies: [Option<&Copy>; 2]) -> bool {
        let History { chains, forked, .. } = &self.histories[document];
        let held = |author| copies.map(|copy| copy.map_or(0, |copy| copy.held(author)));
        (0..chains.len()).filter(|author| !forked.contains(author)).all(|author| held(author)[0] == held(author)[1])
    }

    fn number_document(&mut self, document: &DocumentId) -> DocumentNumber {
        if let Some(number) = self.documents.get(document) {
            return *number;
        }
        let number = self.documents.len();
        self.documents.insert(document.clone(), number);
        self.histories.push(History::default());
        number
    }

    /// Whether a replica believes more of a document than its disk holds, which has lost writes behind its back.
    pub fn is_deceived(&self, node: NodeId, document: DocumentNumber) -> bool {
        self.deceived.contains_key(&(node, document))
    }

    fn number_author(&mut self, author: ReplicaId) -> AuthorNumber {
        let next = self.authors.len();
        *self.authors.entry(author).or_insert(next)
    }

    fn copy_mut(&mut self, node: NodeId, document: DocumentNumber) -> &mut Copy {
        if self.copies.len() <= node.index() {
            self.copies.resize_with(node.index() + 1, Vec::new);
            self.nodes.resize(node.index() + 1, None);
        }
        self.nodes[node.index()] = Some(node);
        let copies = &mut self.copies[node.index()];
        if copies.len() <= document {
            copies.resize_with(document + 1, Copy::default);
        }
        &mut copies[document]
    }

    fn append(&mut self, node: NodeId, document: DocumentNumber, entries: &[Entry]) {
        for entry in entries {
            let id = entry.op.id;
            let author = self.number_author(id.author);
            let aside = self.copy_mut(node, document).aside.iter();
            let is_back = |aside: &Item| (aside.author, aside.seq, aside.chain) == (author, id.seq, entry.chain);
            let foreign = entry.origin.is_some() || aside.into_iter().any(is_back);
            let item = Item { author, seq: id.seq, chain: entry.chain, body: entry.op.body.hash(), foreign };
            self.histories[document].note(&item);
            self.copy_mut(node, document).push(item, id.author);
        }
        let copy = self.copy_mut(node, document);
        let (digest, content) = (copy.digest, copy.content);
        copy.digests.insert(digest);
        self.histories[document].contents.entry(digest).or_insert(content);
    }

    fn written(&mut self, node: NodeId, batch: &Batch) {
        let document = self.number_document(&batch.document);
        let from = self.copy_mut(node, document).items.len();
        self.append(node, document, &batch.entries);
        let copy = self.copy_mut(node, document);
        let record = batch.timeline.map(|record| (record.timeline, record.begins));
        copy.timelines.extend(record.filter(|record| copy.timelines.last() != Some(record)));
        if batch.salvaged.is_some_and(|place| place >= copy.aside.len() as u64) {
            copy.aside.clear();
        }
        self.change = Some(Change { node, document, from });
    }

    fn reset(&mut self, node: NodeId, document: &DocumentId, timeline: Timeline) {
        let document = self.number_document(document);
        let copy = self.copy_mut(node, document);
        let mut aside = std::mem::take(&mut copy.aside);
        aside.extend(copy.items.drain(copy.below..));
        let (ever, epoch) = (std::mem::take(&mut copy.ever), copy.epoch + 1);
        let (digests, timelines) = (std::mem::take(&mut copy.digests), vec![(timeline, 0)]);
        *copy = Copy { aside, ever, epoch, digests, timelines, ..Copy::default() };
        self.change = Some(Change { node, document, from: 0 });
    }

    /// A disk is not what the last writes made of it: reads what is on it.
    fn read_anew<A: App>(&mut self, world: &World<ReplicaNode<A>>, node: NodeId) {
        let disk = world.disk_of(node);
        let known: Vec<_> = self.documents.keys().cloned().chain(disk.documents()).collect();
        for document in known {
            let read = disk.read(|storage| {
                let stored = storage.document(&document)?;
                let entries = storage.read(&document, stored.horizon, u64::MAX)?;
                let aside = match stored.aside {
                    Some(_) => storage.read_aside(&document, 0, u64::MAX)?,
                    None => Vec::new(),
                };
                Ok::<_, StorageError>((stored, entries, aside))
            });
            let Some((stored, entries, aside)) = read else { continue };
            let document = self.number_document(&document);
            let copy = self.copy_mut(node, document);
            let (ever, epoch) = (std::mem::take(&mut copy.ever), copy.epoch + 1);
            let digests = std::mem::take(&mut copy.digests);
            let timelines = stored.timelines.iter().map(|record| (record.timeline, record.begins)).collect();
            *copy = Copy { ever, epoch, digests, timelines, ..Copy::default() };
            self.append(node, document, &aside);
            let copy = self.copy_mut(node, document);
            let aside = std::mem::take(&mut copy.items);
            let Copy { ever, epoch, digests, timelines, .. } = std::mem::take(copy);
            *copy = Copy { aside, ever, epoch, digests, timelines, ..Copy::default() };
            self.install(node, document, &stored);
            self.append(node, document, &entries);
        }
    }

    /// A snapshot is made: notes what it stands for.
    fn compacted(&mut self, node: NodeId, id: &DocumentId, stored: &StoredDocument) {
        let document = self.number_document(id);
        let authors: BTreeMap<_, _> = self.authors.iter().map(|(id, number)| (*number, *id)).collect();
        let copy = self.copy_mut(node, document);
        copy.below = copy.index(stored.horizon);
        let items = copy.items[..copy.below].iter().map(|item| (*item, authors[&item.author])).collect();
        if let Some(snapshot) = stored.snapshot {
            self.snapshots.insert(snapshot.hash, items);
        }
    }

    /// A copy begins with the snapshot that a disk has of it.
    fn install(&mut self, node: NodeId, document: DocumentNumber, stored: &StoredDocument) {
        let items = stored.snapshot.and_then(|snapshot| self.snapshots.get(&snapshot.hash)).cloned();
        for (item, author) in items.into_iter().flatten() {
            self.copy_mut(node, document).push(Item { foreign: true, ..item }, author);
        }
        let copy = self.copy_mut(node, document);
        (copy.below, copy.shift) = (copy.items.len(), copy.items.len() - stored.horizon as usize);
        let (digest, content) = (copy.digest, copy.content);
        copy.digests.insert(digest);
        self.histories[document].contents.entry(digest).or_insert(content);
    }
}

impl History {
    fn note(&mut self, item: &Item) {
        if self.chains.len() <= item.author {
            self.chains.resize_with(item.author + 1, Vec::new);
        }
        let chains = &mut self.chains[item.author];
        match usize::try_from(item.seq).ok().and_then(|seq| chains.get(seq.checked_sub(1)?)) {
            None => chains.push(item.chain),
            Some(chain) if *chain == item.chain => {}
            Some(_) => _ = self.forked.insert(item.author),
        }
    }

    /// Whether some author has two histories.
    pub fn is_forked(&self) -> bool {
        !self.forked.is_empty()
    }

    /// What the first heads of this digest held.
    pub fn content_of(&self, digest: u64) -> Option<u64> {
        self.contents.get(&digest).copied()
    }
}

impl<A: App> Ledger<ReplicaNode<A>> for Logs {
    fn note(&mut self, world: &World<ReplicaNode<A>>, happening: &Happening<ReplicaNode<A>>) -> Result<(), Violation> {
        self.change = None;
        match happening {
            Happening::Done { node, request: (_, Request::Write(transaction)), .. } => match transaction {
                Transaction::Append(batch) => self.written(*node, batch),
                Transaction::Reset { document, timeline } => self.reset(*node, document, timeline.timeline),
                Transaction::Compact { document, .. } => {
                    let stored = world.disk_of(*node).read(|storage| storage.document(document));
                    stored.iter().for_each(|stored| self.compacted(*node, document, stored));
                }
                Transaction::Install { document, timeline } => {
                    let stored = world.disk_of(*node).read(|storage| storage.document(document));
                    self.reset(*node, document, timeline.timeline);
                    let number = self.number_document(document);
                    stored.iter().for_each(|stored| self.install(*node, number, stored));
                }
                Transaction::Stage { .. } | Transaction::Identity(_) => {}
            },
            Happening::Done { node, request: (_, Request::Open(document)), .. } => {
                let document = self.number_document(document);
                match self.deceived.get_mut(&(*node, document)) {
                    Some(Deception::Suspects) => _ = self.deceived.remove(&(*node, document)),
                    Some(deception) => *deception = Deception::Forgot,
                    None => {}
                }
            }
            Happening::Told { node, event: Told::Event(Event::Failed { document, .. }) } => {
                let place = self.document(document).map(|document| (*node, document));
                if let Some(deception @ Deception::Remembers) = place.and_then(|place| self.deceived.get_mut(&place)) {
                    *deception = Deception::Suspects;
                }
            }
            Happening::TailLost { node, lost: 1.. } if world.is_up(*node) => {
                (self.set_back, self.was_deceived) = (true, true);
                self.read_anew(world, *node);
                let replica = world.process(*node).map(ReplicaNode::replica);
                for (id, document) in &self.documents {
                    let in_memory = replica.is_some_and(|replica| replica.document(id).is_some());
                    let deception = self.deceived.entry((*node, *document)).or_insert(Deception::Remembers);
                    if !in_memory {
                        *deception = Deception::Forgot;
                    }
                }
            }
            Happening::Down { node, lost: 1.., .. }
            | Happening::TailLost { node, lost: 1.. }
            | Happening::Replaced { node } => {
                self.set_back = true;
                self.read_anew(world, *node);
            }
            _ => {}
        }
        if let Happening::Down { node, .. } = happening {
            self.deceived.retain(|(of, _), deception| of != node || *deception == Deception::Forgot);
        }
        self.standing.note(happening);
        self.reached.note(world, happening);
        Ok(())
    }

    fn rest(&self, world: &World<ReplicaNode<A>>) -> Result<(), String> {
        self.standing.rest(self, world)
    }

    fn coverage(&self) -> Coverage {
        self.reached.coverage().clone()
    }

    fn ops(&self) -> u64 {
        let chains = self.histories.iter().flat_map(|history| &history.chains);
        chains.map(|chains| chains.len() as u64).sum()
    }
}
