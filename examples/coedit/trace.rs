//! Recorded sessions: what the file says, checked, and what each transaction of it needs to have seen.

use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::Path;

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};

use crate::Failure;

/// The file: gzipped JSON. What is not read here is left out.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Recording {
    pub(crate) kind: String,
    pub(crate) end_content: String,
    pub(crate) num_agents: u32,
    pub(crate) txns: Vec<Txn>,
}

#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Txn {
    /// Indices of transactions: this one was made where all of them, and all before them, were seen, and nothing else.
    pub(crate) parents: Vec<usize>,
    pub(crate) agent: u32,
    pub(crate) patches: Vec<Patch>,
}

/// Position, characters deleted there, text inserted there. Characters are Unicode code points.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Patch(pub(crate) usize, pub(crate) usize, pub(crate) String);

/// A session that can be replayed.
pub(crate) struct Trace {
    pub(crate) end_content: String,
    pub(crate) transactions: u64,
    /// Whether it has characters that are two units in UTF-16.
    pub(crate) wide: bool,
    /// Those who write, in the order of their agents' numbers. Agents without transactions are not among them.
    pub(crate) parts: Vec<Part>,
}

/// What one writer does.
pub(crate) struct Part {
    pub(crate) agent: u32,
    pub(crate) transactions: Vec<Transaction>,
}

pub(crate) struct Transaction {
    /// Its index in the file.
    pub(crate) index: usize,
    /// What its parents imply and the writer's transaction before this did not: of this writer, so many transactions.
    pub(crate) needs: Vec<Need>,
    pub(crate) patches: Vec<Patch>,
}

/// So many transactions of a writer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Need {
    pub(crate) writer: usize,
    pub(crate) count: u64,
}

impl Recording {
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let file = File::open(path).map_err(|error| format!("can't open {}: {error}", path.display()))?;
        let json = BufReader::new(GzDecoder::new(BufReader::new(file)));
        serde_json::from_reader(json).map_err(|error| {
            let what = "a gzipped JSON file of the kind \"concurrent\" of josephg's editing-traces is wanted";
            format!("{} is not a trace of several people ({error}): {what}", path.display()).into()
        })
    }

    pub(crate) fn write(&self, path: &Path) -> Result<(), Failure> {
        let mut file = GzEncoder::new(BufWriter::new(File::create(path)?), Compression::fast());
        serde_json::to_writer(&mut file, self)?;
        file.finish()?.into_inner()?;
        Ok(())
    }
}

impl TryFrom<Recording> for Trace {
    type Error = Failure;

    fn try_from(recording: Recording) -> Result<Self, Failure> {
        let Recording { kind, end_content, num_agents, txns } = recording;
        if kind != "concurrent" {
            return Err(format!("its kind is {kind:?}: only of the kind \"concurrent\" have several writers").into());
        }
        let mut agents: Vec<u32> = txns.iter().map(|txn| txn.agent).collect();
        agents.sort_unstable();
        agents.dedup();
        let parts = agents.iter().map(|agent| Part { agent: *agent, transactions: Vec::new() });
        let mut parts: Vec<Part> = parts.collect();

        // After each transaction, the transactions of each writer that are seen there; and each writer's last of those.
        let mut seen: Vec<Vec<u64>> = Vec::with_capacity(txns.len());
        let mut last: Vec<Option<usize>> = vec![None; agents.len()];
        let transactions = txns.len() as u64;
        let mut inserted = txns.iter().flat_map(|txn| &txn.patches).flat_map(|Patch(_, _, inserted)| inserted.chars());
        let wide = inserted.any(|character| character.len_utf16() > 1);
        for (index, Txn { parents, agent, patches }) in txns.into_iter().enumerate() {
            let bad = |what: String| Failure::from(format!("transaction {index} {what}"));
            if agent >= num_agents {
                return Err(bad(format!("is of agent {agent}, where there are {num_agents}")));
            }
            let writer = agents.binary_search(&agent).map_err(|_| bad(String::from("is of nobody")))?;
            let mut now = vec![0; agents.len()];
            for parent in parents {
                if parent >= index {
                    return Err(bad(format!("has the parent {parent}, which does not come before it")));
                }
                now.iter_mut().zip(&seen[parent]).for_each(|(now, there)| *now = (*now).max(*there));
            }
            let part = &mut parts[writer];
            if now[writer] != part.transactions.len() as u64 {
                return Err(bad(format!("of agent {agent} does not follow from all that the same agent did before")));
            }
            let before = last[writer].map(|index| &seen[index]);
            let news = |(writer, count): (usize, u64)| {
                (count > before.map_or(0, |seen| seen[writer])).then_some(Need { writer, count })
            };
            let counts = now.iter().copied().enumerate().filter(|(other, _)| *other != writer);
            let needs = counts.filter_map(news).collect();
            part.transactions.push(Transaction { index, needs, patches });
            now[writer] += 1;
            seen.push(now);
            last[writer] = Some(index);
        }
        Ok(Self { end_content, transactions, wide, parts })
    }
}
