//! Links that this end connects, and connects again when they end.

use std::sync::Arc;
use std::time::Duration;

use antiphon::codes::{Code, Retry};
use antiphon::heads::Heads;
use antiphon::op::DocumentId;
use antiphon::replica::{Input, LinkId};
use async_io::Timer;
use futures_lite::future::or;

use crate::config::{LinkOptions, RedialPolicy};
use crate::engine::{Engine, Shared};
use crate::error::{Error, LinkEnd};
use crate::links::{Over, carry};
use crate::node::{Node, goodbye};
use crate::progress::{LinkState, OnLink, Progress};
use crate::transport::{ConnectError, Connector, Transport};

/// A link that this end connects, again and again. It goes on when the handle is dropped; clones are the same link.
#[derive(Clone, Debug)]
pub struct Link {
    node: Node,
    progress: Arc<Progress>,
}

impl Link {
    pub(crate) fn new(node: Node, progress: Arc<Progress>) -> Self {
        Self { node, progress }
    }

    /// What it is doing.
    pub fn state(&self) -> LinkState {
        self.progress.state()
    }

    /// Waits until there is a session.
    ///
    /// # Errors
    /// If the link is over for good.
    pub async fn live(&self) -> Result<(), Error> {
        self.until(|_| Ok(true)).await
    }

    /// Waits until the link is over for good, and says why. Failures that are tried again are no end.
    pub async fn ended(&self) -> LinkEnd {
        loop {
            let changed = self.node.0.changed.listen();
            if let LinkState::Ended(end) = self.state() {
                return end;
            }
            changed.await;
        }
    }

    /// Waits until the peer is durably in possession of everything that was appended here before, this time or earlier.
    ///
    /// # Errors
    /// If the document is not open or is closed at the other end, the storage failed, or the link is over for good.
    pub async fn acknowledged(&self, document: &DocumentId) -> Result<(), Error> {
        let mut asked = None;
        self.node.0.turn(|engine| self.want_ack(engine, document, &mut asked));
        self.node.written(document).await?;
        let mut goal = None;
        self.until(|engine| {
            self.want_ack(engine, document, &mut asked);
            engine.documents.check(document)?;
            let progress = self.on_link(engine, document)?;
            let Some((_, tail)) = engine.replica.document(document) else { return Ok(false) };
            // Of a log that began anew since, the peer must have what it has when nothing is aside any more.
            let restarts = engine.documents.get(document).map_or(0, |state| state.restarts);
            if engine.replica.appending(document).aside {
                goal = None;
                return Ok(false);
            }
            goal.take_if(|(of, _)| *of != restarts);
            let (_, goal) = *goal.get_or_insert((restarts, tail));
            Ok(progress.acknowledged >= goal)
        })
        .await
    }

    /// Waits until both ends hold the same of a document, and nothing is on its way into it here. Returns the heads and
    /// the position after the last entry at that moment.
    ///
    /// # Errors
    /// If the document is not open or is closed at the other end, histories differ, the storage failed, or the link is
    /// over for good.
    pub async fn in_step(&self, document: &DocumentId) -> Result<(Arc<Heads>, u64), Error> {
        let mut found = None;
        self.until(|engine| {
            engine.documents.check(document)?;
            let progress = self.on_link(engine, document)?;
            let Some((heads, tail)) = engine.replica.document(document) else { return Ok(false) };
            found = Some((heads.clone(), tail));
            Ok(progress.in_step == Some(heads.digest()) && engine.replica.appending(document).is_done())
        })
        .await?;
        found.ok_or(Error::Stopped)
    }

    /// Waits until something is wrong with a document on this link: one of the errors of [`in_step`](Self::in_step).
    pub async fn failure(&self, document: &DocumentId) -> Error {
        let never = self.until(|engine| {
            engine.documents.check(document)?;
            self.on_link(engine, document)?;
            Ok(false)
        });
        never.await.err().unwrap_or(Error::Stopped)
    }

    /// Everything of a document below this position is durable at the peer, as far as it has said so in this session.
    pub fn position_acknowledged(&self, document: &DocumentId) -> u64 {
        self.progress.document(document).acknowledged
    }

    /// Why a document is not open on this link, if one of the two ends has closed it: for now, or, where the code says to
    /// try never again, for good.
    pub fn closed(&self, document: &DocumentId) -> Option<(Code, String)> {
        self.progress.document(document).closed.map(|(code, reason, _)| (code, reason))
    }

    /// Says goodbye to the peer, and does not connect again.
    pub fn disconnect(&self) {
        self.progress.unwant();
        let us = match self.state() {
            LinkState::Live { link, .. } => Some(link),
            _ => None,
        };
        self.node.0.turn(|engine| {
            us.into_iter().for_each(|link| engine.tell(goodbye(link, Code::SHUTDOWN, "the app disconnected", None)));
            engine.stir();
        });
    }

    /// Asks for the peer's acknowledgement, once a session.
    fn want_ack(&self, engine: &mut Engine, document: &DocumentId, asked: &mut Option<LinkId>) {
        if let LinkState::Live { link, .. } = self.state()
            && asked.replace(link) != Some(link)
        {
            engine.tell(Input::ImmediateAck { document: document.clone(), link });
        }
    }

    fn on_link(&self, engine: &Engine, document: &DocumentId) -> Result<OnLink, Error> {
        let progress = self.progress.document(document);
        if let Some((code, reason, by)) = progress.closed.clone().filter(|(code, ..)| code.retry() == Retry::Never) {
            return Err(Error::Closed { document: document.clone(), code, reason, by });
        }
        if progress.forked && !engine.documents.mends(document, self.progress.upstream) {
            return Err(Error::Forked { document: document.clone() });
        }
        Ok(progress)
    }

    /// Waits until the link is live and `reached` says so.
    async fn until(&self, mut reached: impl FnMut(&mut Engine) -> Result<bool, Error>) -> Result<(), Error> {
        loop {
            let changed = self.node.0.changed.listen();
            let reached = self.node.0.turn(|engine| match self.state() {
                LinkState::Ended(end) => Err(Error::Link(end)),
                LinkState::Live { .. } if reached(engine)? => Ok(true),
                _ => engine.serving().map(|()| false),
            });
            if reached? {
                return Ok(());
            }
            changed.await;
        }
    }
}

/// Connects, and connects again, until that makes no sense any more.
pub(crate) async fn dial(
    shared: Arc<Shared>,
    mut connector: impl Connector,
    options: LinkOptions,
    policy: RedialPolicy,
    progress: Arc<Progress>,
) {
    let mut backoff = policy.backoff();
    let end = loop {
        let attempt = attempt(&shared, &mut connector, &options, &progress);
        let (error, live) = match attempt.await {
            Ok(Over { ending: Some(ending), .. }) if ending.code.retry() == Retry::Never => {
                break LinkEnd::Session(ending);
            }
            Ok(Over { ending: Some(ending), live, .. }) => {
                let reason = format!("the session ended: {} ({})", ending.reason, ending.code);
                let hint = ending.retry_after.map(|millis| Duration::from_millis(millis.into()));
                let now = ending.code.retry() == Retry::Now && backoff.failures() == 0;
                let error = ConnectError::later(reason);
                (if now { error.at_once() } else { hint.into_iter().fold(error, ConnectError::after) }, live)
            }
            Ok(Over { error, live, .. }) => {
                let reason = error.unwrap_or_else(|| String::from("the peer closed the connection"));
                (ConnectError::later(reason), live)
            }
            Err(Failure::Unwanted(end)) => break end,
            Err(Failure::Connect(error)) if error.retry() == Retry::Never => break LinkEnd::Connect(error),
            Err(Failure::Connect(error)) => (error, None),
        };
        if let Some(end) = unwanted(&shared, &progress) {
            break end;
        }
        if live.is_some_and(|live| live >= policy.healthy_after) {
            backoff.reset();
        }
        let wait = backoff.fail(&mut shared.lock().rng);
        let wait = match (error.retry(), error.retry_after()) {
            (Retry::Now, _) => Duration::ZERO,
            // By chance on top of it, or all whom a server told the same would come back at the same moment.
            (_, Some(hint)) => hint + wait,
            (_, None) => wait,
        };
        let reason = Some(error.reason().to_owned());
        progress.set_state(LinkState::Connecting { failures: backoff.failures(), reason });
        shared.changed.notify(usize::MAX);
        let waited = async {
            Timer::after(wait).await;
            None
        };
        if let Some(end) = or(waited, async { Some(becomes_unwanted(&shared, &progress).await) }).await {
            break end;
        }
    };
    progress.set_state(LinkState::Ended(end));
    shared.changed.notify(usize::MAX);
}

enum Failure {
    Connect(ConnectError),
    Unwanted(LinkEnd),
}

/// One connection and its session.
async fn attempt(
    shared: &Arc<Shared>,
    connector: &mut impl Connector,
    options: &LinkOptions,
    progress: &Arc<Progress>,
) -> Result<Over, Failure> {
    let connected =
        async { connector.connect(shared.config.replica.session.limits.frame).await.map_err(Failure::Connect) };
    let unwanted = async { Err(Failure::Unwanted(becomes_unwanted(shared, progress).await)) };
    let transport = or(connected, unwanted).await?;
    let link = shared.connected(transport.kind(), options, Some(progress.clone()));
    let link = link.map_err(|_| Failure::Unwanted(LinkEnd::Stopped))?;
    Ok(carry(shared, link, transport.split()).await)
}

fn unwanted(shared: &Shared, progress: &Progress) -> Option<LinkEnd> {
    if progress.is_unwanted() {
        return Some(LinkEnd::Disconnected);
    }
    shared.lock().running().err().map(|_| LinkEnd::Stopped)
}

async fn becomes_unwanted(shared: &Shared, progress: &Progress) -> LinkEnd {
    loop {
        let changed = shared.changed.listen();
        if let Some(end) = unwanted(shared, progress) {
            return end;
        }
        changed.await;
    }
}
