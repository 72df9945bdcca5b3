//! How plans for stores are drawn: transactions over a few names, so that they meet.

use std::time::Duration;

use super::{Content, Deed, Edit, Stores};
use crate::plan::{Place, Source};
use crate::replica::{AppWorkload, Setup, Write, Writer};

const NAMES: [&str; 3] = ["a", "b", "c"];
/// No snapshot of a drawn store is larger, but for its long strings.
const SNAPSHOT_BYTES_MAX: u64 = 4_000;

fn draw_edit(source: &mut dyn Source) -> Edit {
    let mut name = || NAMES[source.below(NAMES.len() as u64) as usize];
    let path = [name(), name(), name()];
    let content = match source.below(40) {
        0 => Some(Content::Text(2_000 + source.below(8_000) as u32)),
        1..=3 => Some(Content::Text(100 + source.below(500) as u32)),
        4..=10 => None,
        11..=18 => Some(Content::Number(source.below(3) as i64)),
        _ => Some(Content::Number(source.below(1 << 30) as i64)),
    };
    match source.below(40) {
        0..=25 => Edit::of_tables(&path, content),
        26..=33 => Edit::of_values(Some(path[0]), content),
        34..=36 => Edit::of_tables(&path[..2], None),
        37 => Edit::of_tables(&path[..1], None),
        38 => Edit::of_tables(&[], None),
        _ => Edit::of_values(None, None),
    }
}

impl AppWorkload for Stores {
    fn draw_action(source: &mut dyn Source, setup: &Setup, _: u32) -> (Deed, u32) {
        let index = source.below(setup.documents.len() as u64) as usize;
        let document = setup.documents.keys().nth(index).cloned();
        let document = document.unwrap_or_else(|| "doc0".parse().expect("the name is valid"));
        let edits = if source.one_in(2) { 1 } else { 1 + source.below(4) };
        let edits = (0..edits).map(|_| draw_edit(source)).collect();
        (Deed::Write { document, edits }, 1)
    }

    fn bytes(deed: &Deed) -> u64 {
        match deed {
            Deed::Write { edits, .. } => edits.iter().map(Edit::bytes).sum(),
            Deed::Sweep { .. } | Deed::Document(Write::Compact(_)) => SNAPSHOT_BYTES_MAX,
            Deed::Document(_) => 0,
        }
    }

    fn draw_more(source: &mut dyn Source, place: &Place, setup: &Setup, until: Duration) -> Vec<(Duration, Deed)> {
        let more = Writer::draw_more(source, place, setup, until);
        let mut deeds = Vec::new();
        for (at, write) in more {
            if let Write::Compact(document) = &write
                && source.one_in(2)
            {
                let age = source.millis(0, 1_000);
                deeds.push((at.saturating_sub(age), Deed::Sweep { document: document.clone(), age }));
            }
            deeds.push((at, Deed::Document(write)));
        }
        deeds
    }
}
