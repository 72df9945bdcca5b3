//! What runs a node: one future, for any executor.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_executor::Executor;
use async_io::Timer;
use futures_lite::FutureExt;

use crate::disk::{self, Outcome};
use crate::engine::{Phase, Shared};
use crate::error::Error;

/// Runs a node. It is a future: spawn it on any executor, or wait for it on a thread of its own; the node's links, its
/// timers, and what the storage answers are dealt with there, on one thread at a time.
///
/// It is ready when [`Node::shutdown`](crate::Node::shutdown) was called and everything is done, with the storage, synced.
/// If it is dropped before, the links break off, what was given to the storage is still written, and the storage is
/// closed on its thread.
#[must_use = "a node does nothing unless its driver runs"]
pub struct Driver<S>(Pin<Box<dyn Future<Output = Result<S, Error>> + Send>>);

impl<S> fmt::Debug for Driver<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").finish_non_exhaustive()
    }
}

impl<S> Future for Driver<S> {
    type Output = Result<S, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll(context)
    }
}

impl<S: Send + 'static> Driver<S> {
    pub(crate) fn new(
        shared: Arc<Shared>,
        executor: Arc<Executor<'static>>,
        end: async_channel::Receiver<Outcome<S>>,
    ) -> Self {
        let guard = Guard(shared.clone());
        Self(Box::pin(async move {
            let outcome = executor.run(drive(&shared, end)).await;
            shared.turn(|engine| engine.stop(outcome.as_ref().map(|_| ()).map_err(Error::clone)));
            drop(guard);
            outcome
        }))
    }
}

/// Tells everybody if the driver is dropped.
struct Guard(Arc<Shared>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.turn(|engine| {
            if !matches!(engine.phase, Phase::Stopped(_)) {
                engine.stop(Err(Error::Stopped));
            }
        });
    }
}

async fn drive<S>(shared: &Shared, end: async_channel::Receiver<Outcome<S>>) -> Result<S, Error> {
    let mut replies = Vec::new();
    let (mut timer, mut fired) = (Timer::never(), true);
    let mut patience = None;
    let written = poll_fn(|context| {
        loop {
            shared.replies.bell.register(context.waker());
            let due = shared.drive(&mut replies, std::mem::take(&mut fired));
            if shared.lock().phase == Phase::Draining {
                let patience = patience.get_or_insert_with(|| Timer::after(shared.config.drain_deadline));
                if shared.lock().is_drained() {
                    return Poll::Ready(true);
                }
                if patience.poll(context).is_ready() {
                    return Poll::Ready(false);
                }
            }
            due.into_iter().for_each(|due| timer.set_at(shared.time(due)));
            if timer.poll(context).is_pending() {
                return Poll::Pending;
            }
            fired = true;
        }
    })
    .await;
    shared.lock().jobs = None; // the storage syncs and ends
    let failed = |reason| Error::Storage { document: None, reason };
    let storage = end.recv().await.unwrap_or_else(|_| Err(String::from(disk::GONE))).map_err(failed)?;
    if !written {
        let reason =
            String::from("it did not write everything before the deadline: what is missing was not acknowledged");
        return Err(failed(reason));
    }
    Ok(storage)
}
