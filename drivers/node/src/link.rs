//! Links at work: the two halves of a transport, each in a task of its own, and connecting again what ended.

use std::future::{Future, poll_fn};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use antiphon::codes::Retry;
use antiphon::replica::LinkId;
use async_io::Timer;
use futures_lite::future::{or, yield_now};

use crate::config::{LinkOptions, RedialPolicy};
use crate::engine::{Over, Shared, cost};
use crate::error::LinkEnd;
use crate::progress::{LinkState, Progress};
use crate::transport::{ConnectError, Connector, FrameReceiver, FrameSender, Transport};

/// Frames received in a row before other tasks have their turn.
const FRAMES_IN_A_ROW: u32 = 32;
/// Room for this many frames is kept by a link that has nothing to send.
const FRAMES_KEPT: usize = 16;

/// What `future` comes to, if that is within `limit`. The timer is set only if it has to be waited for.
async fn within<T>(limit: Duration, future: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    or(future, async {
        Timer::after(limit).await;
        Err(io::ErrorKind::TimedOut.into())
    })
    .await
}

/// The same of something that the transport is to take; once the link is over it has less time.
async fn patiently<T>(shared: &Shared, link: LinkId, future: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let last = async {
        poll_fn(|context| shared.poll_over(link, context)).await;
        Timer::after(shared.config.close_deadline).await;
        Err(io::ErrorKind::TimedOut.into())
    };
    within(shared.config.write_deadline, or(future, last)).await
}

/// Carries the frames of a link until it is over, and says how that came about.
pub(crate) async fn carry(shared: &Arc<Shared>, link: LinkId, transport: impl Transport) -> Over {
    let (mut sender, receiver) = transport.split();
    let Some(executor) = shared.executor.upgrade() else { return shared.forget(link) };
    let receiving = executor.spawn(receive(shared.clone(), link, receiver));
    drop(executor);
    match send(shared, link, &mut sender).await {
        Ok(()) => {
            let deadline = shared.config.close_deadline;
            if within(deadline, sender.close()).await.is_ok() {
                // A socket that is dropped with something unread in it takes back what it has sent.
                let _ = within(deadline, async { Ok(receiving.fallible().await) }).await;
            }
        }
        Err(error) => shared.gone(link, Some(said(&error))),
    }
    shared.forget(link)
}

fn said(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::TimedOut => String::from("the connection took nothing for too long"),
        _ => error.to_string(),
    }
}

async fn send(shared: &Shared, link: LinkId, sender: &mut impl FrameSender) -> io::Result<()> {
    let (mut frames, mut written) = (Vec::new(), 0);
    loop {
        let mut waited = false;
        let more = poll_fn(|context| {
            let poll = shared.poll_frames(link, std::mem::take(&mut written), &mut frames, context);
            waited |= poll.is_pending();
            poll
        });
        if !more.await {
            return Ok(());
        }
        if !waited {
            yield_now().await; // a peer that takes everything at once must not keep the others waiting
        }
        for frame in frames.drain(..) {
            written += cost(&frame);
            patiently(shared, link, sender.send(frame)).await?;
        }
        patiently(shared, link, sender.flush()).await?;
        if frames.capacity() > FRAMES_KEPT {
            frames = Vec::new();
        }
    }
}

async fn receive(shared: Arc<Shared>, link: LinkId, mut receiver: impl FrameReceiver) {
    let mut in_a_row = 0;
    loop {
        match receiver.receive().await {
            Ok(Some(frame)) => shared.received(link, frame),
            Ok(None) => return shared.gone(link, None),
            Err(error) => return shared.gone(link, Some(error.to_string())),
        }
        poll_fn(|context| shared.poll_receiving(link, context)).await;
        in_a_row += 1;
        if in_a_row == FRAMES_IN_A_ROW {
            in_a_row = 0;
            yield_now().await;
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
    let connected = async { connector.connect().await.map_err(Failure::Connect) };
    let unwanted = async { Err(Failure::Unwanted(becomes_unwanted(shared, progress).await)) };
    let transport = or(connected, unwanted).await?;
    let link = shared.connected(transport.kind(), options, Some(progress.clone()));
    let link = link.map_err(|_| Failure::Unwanted(LinkEnd::Stopped))?;
    Ok(carry(shared, link, transport).await)
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
