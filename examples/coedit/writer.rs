//! What the participants do: write as the trace says, or read along.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::Sender;

use antiphon::heads::Heads;
use antiphon::op::{Entry, ReplicaId};
use antiphon_node::{Follow, Followed};
use bytes::Bytes;

use crate::Failure;
use crate::participant::{Overlap, Participant};
use crate::text::Text;
use crate::trace::{Need, Part};

/// What all have in common.
pub(crate) struct Session {
    pub(crate) parts: Vec<Part>,
    pub(crate) end_content: String,
    pub(crate) transactions: u64,
    pub(crate) wide: bool,
    pub(crate) writers: Vec<Arc<Participant>>,
    /// Which writer an author is.
    pub(crate) authors: BTreeMap<ReplicaId, usize>,
    pub(crate) overlap: Overlap,
}

/// What a participant tells.
pub(crate) enum Report {
    /// It has written one op.
    Written,
    /// It has taken in ops of others.
    Integrated,
    /// It has written and taken in all there is, or failed.
    Done(Result<Outcome, Failure>),
}

/// How it ended for one participant.
pub(crate) struct Outcome {
    pub(crate) content: String,
    pub(crate) heads: Arc<Heads>,
    /// How many transactions could not be made before others' ops arrived.
    pub(crate) waits: u64,
}

impl Session {
    /// Makes the transactions of a writer, one after the other, each on exactly what its parents imply.
    pub(crate) async fn write(&self, me: usize, reports: &Sender<Report>) -> Result<Outcome, Failure> {
        let (participant, part) = (&self.writers[me], &self.parts[me]);
        let (mut text, mut inbox) = (Text::of(part.agent, self.wide), Inbox::new(self, participant, Some(me)));
        let mut waits = 0;
        for transaction in &part.transactions {
            waits += u64::from(!inbox.holds(&transaction.needs));
            inbox.integrate(&transaction.needs, &mut text, reports).await?;
            let update = text.edit(&transaction.patches);
            let update = update.map_err(|error| format!("transaction {} of the trace {error}", transaction.index))?;
            participant.append(update).await?;
            self.overlap.look(me, &self.writers);
            let _ = reports.send(Report::Written); // if nobody listens, the run is over
        }
        let (content, heads) = self.finish(participant, inbox, text, reports).await?;
        Ok(Outcome { content, heads, waits })
    }

    /// Takes in whatever comes, until it is all.
    pub(crate) async fn read(
        &self,
        participant: &Participant,
        agent: u32,
        reports: &Sender<Report>,
    ) -> Result<Outcome, Failure> {
        let inbox = Inbox::new(self, participant, None);
        let (content, heads) = self.finish(participant, inbox, Text::of(agent, self.wide), reports).await?;
        Ok(Outcome { content, heads, waits: 0 })
    }

    async fn finish(
        &self,
        participant: &Participant,
        mut inbox: Inbox<'_>,
        mut text: Text,
        reports: &Sender<Report>,
    ) -> Result<(String, Arc<Heads>), Failure> {
        let all = self.parts.iter().enumerate();
        let all = all.map(|(writer, part)| Need { writer, count: part.transactions.len() as u64 });
        let all: Vec<Need> = all.filter(|need| inbox.me != Some(need.writer)).collect();
        inbox.integrate(&all, &mut text, reports).await?;
        let (heads, _) = participant.link.in_step(&participant.document).await?;
        Ok((text.content(), heads))
    }
}

/// A participant's replica, as what its document takes ops from: each when it is implied, and not before.
struct Inbox<'a> {
    session: &'a Session,
    participant: &'a Participant,
    me: Option<usize>,
    log: Follow,
    writers: Vec<FromWriter>,
}

/// The ops of one writer.
#[derive(Default)]
struct FromWriter {
    /// How many were read from the log.
    read: u64,
    /// How many of those are in the document.
    integrated: u64,
    /// Those that are not, by their positions in the log.
    kept_back: VecDeque<(u64, Bytes)>,
}

impl<'a> Inbox<'a> {
    fn new(session: &'a Session, participant: &'a Participant, me: Option<usize>) -> Self {
        let log = participant.node.follow(&participant.document, 0);
        let writers = session.parts.iter().map(|_| FromWriter::default()).collect();
        Self { session, participant, me, log, writers }
    }

    /// Whether what is needed is in the replica already.
    fn holds(&self, needs: &[Need]) -> bool {
        let Some((heads, _)) = self.participant.node.document(&self.participant.document) else {
            return needs.is_empty();
        };
        needs.iter().all(|need| heads.get(self.session.writers[need.writer].replica()).seq >= need.count)
    }

    /// Takes in what is needed and not yet in the document, in the order of the log, which is causal; waits for it if it
    /// has not come yet.
    async fn integrate(&mut self, needs: &[Need], text: &mut Text, reports: &Sender<Report>) -> Result<(), Failure> {
        while needs.iter().any(|need| self.writers[need.writer].read < need.count) {
            match self.log.next().await? {
                Followed::Entries { position, entries } => {
                    (position..).zip(entries).try_for_each(|(position, entry)| self.keep(position, entry))?;
                }
                Followed::Snapshot { .. } | Followed::Restarted => return Err("a replica's log began anew".into()),
            }
            let _ = reports.send(Report::Integrated);
        }
        let mut implied = Vec::new();
        for need in needs {
            let from = &mut self.writers[need.writer];
            let count = need.count - from.integrated;
            implied.extend(from.kept_back.drain(..count as usize));
            from.integrated = need.count;
        }
        implied.sort_unstable_by_key(|(position, _)| *position);
        if implied.is_empty() { Ok(()) } else { text.integrate(implied.iter().map(|(_, update)| &update[..])) }
    }

    fn keep(&mut self, position: u64, entry: Entry) -> Result<(), Failure> {
        let id = entry.op.id;
        let writer =
            *self.session.authors.get(&id.author).ok_or("there is an op of somebody who does not take part")?;
        let from = &mut self.writers[writer];
        from.read += 1;
        if id.seq != from.read {
            return Err(format!("op {} of a writer came where op {} was due", id.seq, from.read).into());
        }
        if self.me != Some(writer) {
            let body = entry.op.body.bytes().ok_or("an op has no body")?;
            from.kept_back.push_back((position, body.clone()));
        }
        Ok(())
    }
}
