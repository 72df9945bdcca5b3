//! A session that nobody had: three writers, drawn from a seed, for when there is no recording at hand.

use antiphon::rng::{Ratio, Rng};

use crate::Failure;
use crate::text::Text;
use crate::trace::{Patch, Recording, Txn};

const WRITERS: usize = 3;
const TRANSACTIONS: usize = 3000;

/// One, two, three and four bytes a character; the last are two units in UTF-16.
const WORDS: [&str; 8] = ["a", "sea ", "naïve ", "αβγ ", "日本 ", "𝄞", "two\nlines ", "😀 "];

struct Writer {
    text: Text,
    /// How many transactions of each writer it has seen.
    seen: Vec<usize>,
}

/// The session, by way of a file, as any other.
pub(crate) fn recording(seed: u64) -> Result<Recording, Failure> {
    let file = tempfile::NamedTempFile::new()?;
    session(seed)?.write(file.path())?;
    Recording::read(file.path())
}

/// Somebody writes, at random, and now and then sees what another has; at last one sees all.
fn session(seed: u64) -> Result<Recording, Failure> {
    let mut rng = Rng::new(seed);
    let agents = 0..WRITERS as u32;
    let mut writers: Vec<Writer> =
        agents.map(|agent| Writer { text: Text::of(agent, true), seen: vec![0; WRITERS] }).collect();
    let mut txns: Vec<Txn> = Vec::new();
    let (mut updates, mut seen): (Vec<Vec<u8>>, Vec<Vec<usize>>) = (Vec::new(), Vec::new());
    for index in 0..TRANSACTIONS {
        let is_last = index + 1 == TRANSACTIONS;
        let me = below(&mut rng, WRITERS);
        let others: Vec<usize> = match () {
            () if is_last => (0..WRITERS).collect(),
            () if rng.chance(Ratio::one_in(4)) => vec![below(&mut rng, WRITERS)],
            () => Vec::new(),
        };
        for other in others {
            let target: Vec<usize> =
                writers[me].seen.iter().zip(&writers[other].seen).map(|(a, b)| *a.max(b)).collect();
            let mut numbers = [0; WRITERS];
            let news = txns.iter().zip(&updates).filter(|(txn, _)| {
                let writer = txn.agent as usize;
                numbers[writer] += 1;
                writers[me].seen[writer] < numbers[writer] && numbers[writer] <= target[writer]
            });
            let news: Vec<&[u8]> = news.map(|(_, update)| update.as_slice()).collect();
            writers[me].text.integrate(news)?;
            writers[me].seen = target;
        }
        let parents = frontier(&writers[me].seen, &txns, &seen);
        // The last one may be without patches: so it is in recordings.
        let patches = if is_last { Vec::new() } else { patches(&mut rng, &writers[me].text.content()) };
        updates.push(writers[me].text.edit(&patches)?);
        writers[me].seen[me] += 1;
        seen.push(writers[me].seen.clone());
        txns.push(Txn { parents, agent: me as u32, patches });
    }
    let last = txns.last().map_or(0, |txn| txn.agent as usize);
    let end_content = writers[last].text.content();
    Ok(Recording { kind: String::from("concurrent"), end_content, num_agents: WRITERS as u32, txns })
}

/// The transactions that imply all that are seen, and of which none implies another.
fn frontier(now: &[usize], txns: &[Txn], seen: &[Vec<usize>]) -> Vec<usize> {
    let newest = (0..WRITERS).filter_map(|writer| {
        let mut own = txns.iter().enumerate().filter(|(_, txn)| txn.agent as usize == writer);
        own.nth(now[writer].checked_sub(1)?).map(|(index, _)| index)
    });
    let newest: Vec<usize> = newest.collect();
    let implied = |index: usize| {
        let writer = txns[index].agent as usize;
        newest.iter().any(|other| *other != index && seen[*other][writer] >= seen[index][writer])
    };
    newest.iter().copied().filter(|index| !implied(*index)).collect()
}

/// One to three patches, each for the text that those before it leave. They grow and shrink it at random places.
fn patches(rng: &mut Rng, content: &str) -> Vec<Patch> {
    let mut length = content.chars().count();
    (0..1 + below(rng, 3))
        .map(|_| {
            let position = below(rng, length + 1);
            let deleted = if rng.chance(Ratio::one_in(3)) { below(rng, 8.min(length - position) + 1) } else { 0 };
            let inserted = if rng.chance(Ratio::one_in(5)) { "" } else { WORDS[below(rng, WORDS.len())] };
            length = length - deleted + inserted.chars().count();
            Patch(position, deleted, inserted.to_owned())
        })
        .collect()
}

fn below(rng: &mut Rng, bound: usize) -> usize {
    rng.below(bound as u64) as usize
}
