//! Links at work: the two halves of a transport, each in a task of its own, and what waits for them.

use std::future::{Future, poll_fn};
use std::io;
use std::mem;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use antiphon::Instant as Moment;
use antiphon::replica::{Input, LinkId};
use antiphon::session::{self, Ending};
use async_executor::Task;
use async_io::Timer;
use bytes::Bytes;
use futures_lite::future::{or, poll_once, yield_now};

use crate::config::LinkOptions;
use crate::engine::{Engine, Shared};
use crate::error::Error;
use crate::progress::Progress;
use crate::transport::{FrameReceiver, FrameSender};

/// Frames received in a row before other tasks have their turn.
const FRAMES_IN_A_ROW: u32 = 32;

/// What `future` comes to, if that is within `limit`. The timer is set only if it has to be waited for.
async fn within<T>(limit: Duration, future: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    or(future, async {
        Timer::after(limit).await;
        Err(io::ErrorKind::TimedOut.into())
    })
    .await
}

/// The same of something that the transport is to take; once the link is over it has less time.
async fn patiently<T>(
    shared: &Shared,
    link: LinkId,
    mut future: Pin<&mut impl Future<Output = io::Result<T>>>,
) -> io::Result<T> {
    if let Some(done) = poll_once(future.as_mut()).await {
        return done;
    }
    // It seldom comes to this: what is needed for it is not to be held by every link that is idle.
    let last = async {
        poll_fn(|context| shared.poll_over(link, context)).await;
        Timer::after(shared.config.close_deadline).await;
        Err(io::ErrorKind::TimedOut.into())
    };
    Box::pin(within(shared.config.write_deadline, or(future, last))).await
}

/// Carries the frames of a link until it is over, and says how that came about.
pub(crate) async fn carry<S: FrameSender>(
    shared: &Arc<Shared>,
    link: LinkId,
    (mut sender, receiver): (S, impl FrameReceiver),
) -> Over {
    let Some(executor) = shared.executor.upgrade() else { return shared.forget(link) };
    let receiving = executor.spawn(receive(shared.clone(), link, receiver));
    drop(executor);
    match send(shared, link, &mut sender).await {
        Ok(()) => Box::pin(close(shared, sender, receiving)).await,
        Err(error) => shared.gone(link, Some(said(&error))),
    }
    shared.forget(link)
}

/// Ends a connection on which everything was sent.
async fn close(shared: &Shared, mut sender: impl FrameSender, receiving: Task<()>) {
    let deadline = shared.config.close_deadline;
    if within(deadline, sender.close()).await.is_ok() {
        // A socket that is dropped with something unread in it takes back what it has sent.
        let _ = within(deadline, async { Ok(receiving.fallible().await) }).await;
    }
}

fn said(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::TimedOut => String::from("the connection took nothing for too long"),
        _ => error.to_string(),
    }
}

async fn send(shared: &Shared, link: LinkId, sender: &mut impl FrameSender) -> io::Result<()> {
    let mut written = 0;
    loop {
        let mut waited = false;
        let frames = poll_fn(|context| {
            let poll = shared.poll_frames(link, mem::take(&mut written), context);
            waited |= poll.is_pending();
            poll
        });
        let Some(frames) = frames.await else { return Ok(()) };
        if !waited {
            yield_now().await; // a peer that takes everything at once must not keep the others waiting
        }
        for frame in frames {
            written += cost(&frame);
            patiently(shared, link, pin!(sender.send(frame))).await?;
        }
        patiently(shared, link, pin!(sender.flush())).await?;
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

/// What a frame that waits takes in memory: small ones are mostly what is around them.
pub(crate) fn cost(frame: &Bytes) -> u64 {
    const AROUND: u64 = 64;
    frame.len() as u64 + AROUND
}

/// A link as its transport's tasks see it.
#[derive(Debug)]
pub(crate) struct Outbound {
    /// Frames for the sending half.
    pub(crate) outbox: Vec<Bytes>,
    /// What they, and those that the transport has not yet taken, [cost](cost).
    pub(crate) queued: u64,
    /// What the replica believes that the transport takes.
    pub(crate) room: u64,
    /// The session is over, or the connection gone: what is in the outbox is the last.
    pub(crate) over: Option<Box<Over>>,
    pub(crate) live_since: Option<Moment>,
    pub(crate) sender: Option<Waker>,
    pub(crate) receiver: Option<Waker>,
    pub(crate) principal: Option<Arc<str>>,
}

/// How a link came to its end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Over {
    /// How the session ended; `None` if the connection went away under it.
    pub(crate) ending: Option<Ending>,
    /// What the transport said.
    pub(crate) error: Option<String>,
    /// How long the session was live.
    pub(crate) live: Option<Duration>,
}

impl Shared {
    /// A link came up.
    pub(crate) fn connected(
        &self,
        transport: session::Transport,
        options: &LinkOptions,
        progress: Option<Arc<Progress>>,
    ) -> Result<LinkId, Error> {
        let LinkOptions { token, upstream, principal } = options.clone();
        self.turn(|engine| {
            engine.running()?;
            let link = LinkId(engine.next_link);
            engine.next_link += 1;
            let state = Outbound {
                outbox: Vec::new(),
                queued: 0,
                room: engine.outbox_bytes,
                over: None,
                live_since: None,
                sender: None,
                receiver: None,
                principal,
            };
            engine.links.insert(link, Box::new(state));
            engine.dialled.extend(progress.map(|progress| (link, progress)));
            engine.tell(Input::Connected { link, transport, token, upstream });
            engine.tell(Input::Writable { link, bytes: engine.outbox_bytes });
            Ok(link)
        })
    }

    /// The sending half has brought frames of this cost on their way and wants more: `None` if there will be none any
    /// more.
    pub(crate) fn poll_frames(&self, link: LinkId, written: u64, context: &Context<'_>) -> Poll<Option<Vec<Bytes>>> {
        let mut engine = self.lock();
        if written > 0 && engine.written(link, written) {
            self.settle(engine);
            engine = self.lock();
        }
        let Some(state) = engine.links.get_mut(&link) else { return Poll::Ready(None) };
        if !state.outbox.is_empty() {
            // With its memory: a link that has nothing to send keeps none.
            Poll::Ready(Some(mem::take(&mut state.outbox)))
        } else if state.over.is_some() {
            Poll::Ready(None)
        } else {
            state.sender = Some(context.waker().clone());
            Poll::Pending
        }
    }

    /// The sending half is held up, and wants to know when what it sends is the last.
    pub(crate) fn poll_over(&self, link: LinkId, context: &Context<'_>) -> Poll<()> {
        let mut engine = self.lock();
        match engine.links.get_mut(&link).filter(|state| state.over.is_none()) {
            None => Poll::Ready(()),
            Some(state) => {
                state.sender = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    /// The receiving half wants to go on: when the peer has taken most of what it asked for.
    pub(crate) fn poll_receiving(&self, link: LinkId, context: &Context<'_>) -> Poll<()> {
        let mut engine = self.lock();
        let max = engine.outbox_bytes_max;
        match engine.links.get_mut(&link).filter(|state| state.queued > max && state.over.is_none()) {
            None => Poll::Ready(()),
            Some(state) => {
                state.receiver = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    /// A frame came.
    pub(crate) fn received(&self, link: LinkId, frame: Bytes) {
        self.turn(|engine| engine.tell(Input::Received { link, frame }));
    }

    /// The connection is gone, by itself or because this end cut it.
    pub(crate) fn gone(&self, link: LinkId, error: Option<String>) {
        self.turn(|engine| {
            engine.tell(Input::Disconnected { link });
            engine.over(link, None, error);
        });
    }

    /// Nothing of a link is left.
    pub(crate) fn forget(&self, link: LinkId) -> Over {
        let state = self.turn(|engine| {
            engine.dialled.remove(&link);
            engine.links.remove(&link)
        });
        state.and_then(|state| state.over).map_or_else(Over::default, |over| *over)
    }
}

impl Engine {
    /// The transport has taken this much. Says whether anything comes of it: mostly nothing does.
    fn written(&mut self, link: LinkId, cost: u64) -> bool {
        let max = self.outbox_bytes;
        let Some(state) = self.links.get_mut(&link) else { return false };
        state.queued -= cost;
        let receiver = if state.queued <= max { state.receiver.take() } else { None };
        let wakes = receiver.is_some();
        self.wakers.extend(receiver);
        // The replica knows what it has sent: it is told only when it might run short.
        let room = max.saturating_sub(state.queued);
        let short = state.room < max / 2 && state.room < room;
        if short {
            state.room = room;
            self.tell(Input::Writable { link, bytes: room });
        }
        short || wakes
    }

    pub(crate) fn over(&mut self, link: LinkId, ending: Option<Ending>, error: Option<String>) {
        let now = self.now();
        let Some(state) = self.links.get_mut(&link).filter(|state| state.over.is_none()) else { return };
        let live = state.live_since.map(|since| now.since(since));
        state.over = Some(Box::new(Over { ending, error, live }));
        self.wakers.extend(state.sender.take());
        self.wakers.extend(state.receiver.take());
    }
}
