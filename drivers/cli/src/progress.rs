//! Progress on stderr, where that is a terminal.

use std::time::Duration;

use antiphon::op::DocumentId;
use antiphon_node::{Link, LinkState, Node};
use async_io::Timer;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

const INTERVAL: Duration = Duration::from_millis(100);

/// Shows how far documents are, for as long as it is polled.
pub(crate) async fn show<T>(output_is_json: bool, node: &Node, link: Option<&Link>, documents: &[DocumentId]) -> T {
    let target = if output_is_json { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(None, target);
    if bar.is_hidden() {
        return std::future::pending().await;
    }
    bar.set_style(ProgressStyle::default_spinner());
    let _erased = Erased(bar.clone());
    loop {
        let here: u64 = documents.iter().filter_map(|document| node.document(document)).map(|(_, tail)| tail).sum();
        let there = |link: &Link| documents.iter().map(|document| link.position_acknowledged(document)).sum::<u64>();
        bar.set_message(match link.map(|link| (link, link.state())) {
            None => format!("{here} ops here"),
            Some((_, LinkState::Connecting { reason: None, .. })) => format!("{here} ops here; connecting"),
            Some((_, LinkState::Connecting { reason: Some(reason), .. })) => format!("{here} ops here; {reason}"),
            Some((link, _)) => format!("{here} ops here; {} of them at the server", there(link)),
        });
        bar.tick();
        Timer::after(INTERVAL).await;
    }
}

/// Takes the bar away when it is no longer wanted.
struct Erased(ProgressBar);

impl Drop for Erased {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
