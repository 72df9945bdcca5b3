//! Logs on stderr, and what of a node's life goes there.

use std::io;

use antiphon::replica::Event;
use antiphon_node::{Node, Notice};
use tracing::{Level, debug, enabled, error, info, warn};
use tracing_subscriber::EnvFilter;

use crate::arguments::EnvFilterText;

/// Starts logging. Who reads JSON gets logs only when asked for, so that an error stands alone.
pub(crate) fn start(filter: Option<&EnvFilterText>, json: bool) {
    let filter = filter.map_or(if json { "off" } else { "warn" }, |text| &text.0);
    let logs = tracing_subscriber::fmt().with_writer(io::stderr).with_env_filter(EnvFilter::new(filter));
    logs.with_target(false).with_ansi(io::IsTerminal::is_terminal(&io::stderr())).init();
}

/// What of a node's life is logged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Logs {
    /// Whether that includes failures of the storage: where nobody else tells them.
    pub(crate) failures: bool,
}

impl Logs {
    /// Logs what happens to a node, until it stops.
    pub(crate) async fn follow(self, node: Node) {
        let mut events = node.subscribe_to(if self.failures { wanted } else { wanted_but_failures });
        let mut recorded = true;
        while let Some(notice) = events.next().await {
            if let Some(failure) = node.recording_failure().filter(|_| recorded) {
                recorded = false;
                error!(failure, "nothing more is recorded");
            }
            match notice {
                Notice::Event(event) => log(&event),
                Notice::Lagged(missed) => warn!(missed, "events were too many to log"),
            }
        }
    }
}

fn wanted_but_failures(event: &Event) -> bool {
    !matches!(event, Event::Failed { .. } | Event::Recovered { .. }) && wanted(event)
}

/// What is logged at the level that was asked for. What comes with each op is for metrics, not for a log.
fn wanted(event: &Event) -> bool {
    match event {
        Event::Applied { .. } | Event::Received { .. } | Event::Acknowledged { .. } => false,
        Event::Opened { .. } | Event::InStep { .. } => enabled!(Level::DEBUG),
        Event::Connected { .. } | Event::Disconnected { .. } | Event::Closed { .. } | Event::Mended { .. } => {
            enabled!(Level::INFO)
        }
        _ => true,
    }
}

fn log(event: &Event) {
    match event {
        Event::Connected { link, replica, .. } => info!(link = link.0, %replica, "connected"),
        Event::Disconnected { link, ending } => {
            let why = ending.as_ref().map(|ending| format!("{} ({})", ending.reason, ending.code));
            info!(link = link.0, why = why.as_deref().unwrap_or("the connection is gone"), "disconnected");
        }
        Event::Opened { document, tail, .. } => debug!(%document, tail, "loaded"),
        Event::InStep { link, document, .. } => debug!(link = link.0, %document, "in step"),
        Event::Closed { link, document, code, reason, .. } => {
            info!(link = link.0, %document, %code, reason, "not shared any more");
        }
        Event::Forked { link, document, authors } => {
            warn!(link = link.0, %document, ?authors, "authors have different histories here and there");
        }
        Event::Renewed { replica, before } => {
            warn!(%replica, %before, "copied or set back data was noticed: the replica has a new id");
        }
        Event::Orphaned { document, ops } => warn!(%document, ops = ops.len(), "ops have no place any more"),
        Event::Compacted { document, horizon } => info!(%document, horizon, "compacted"),
        Event::Mended { document } => info!(%document, "rebuilt"),
        Event::Failed { document, reason } => error!(%document, reason, "the storage failed, and is tried again"),
        Event::Recovered { document, lost, .. } => warn!(%document, lost = lost.len(), "the storage works again"),
        Event::Applied { .. } | Event::Received { .. } | Event::Acknowledged { .. } => {}
    }
}
