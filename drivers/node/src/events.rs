//! Events for those who listen: bounded, and never lost without a word.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Poll, Waker};

use antiphon::op::Op;
use antiphon::replica::Event;

/// What a [`Subscription`] yields.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Notice {
    /// Something happened.
    Event(Event),
    /// The subscriber was too slow, and this many events before the next are left out. What they told stands in the
    /// storage: [`Node::document`](crate::Node::document) says how far it has come,
    /// [`Node::read`](crate::Node::read) what it holds.
    Lagged(u64),
}

/// A subscription to what happens to a node. Dropping it ends it.
#[derive(Debug)]
pub struct Subscription(Arc<Queue>);

#[derive(Debug)]
struct Queue {
    wanted: fn(&Event) -> bool,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    events: VecDeque<Event>,
    bytes: u64,
    missed: u64,
    over: bool,
    waker: Option<Waker>,
}

impl Subscription {
    /// What happened next; `None` when the node has stopped and everything was told.
    pub async fn next(&mut self) -> Option<Notice> {
        poll_fn(|context| {
            let mut waiting = self.0.lock();
            match waiting.pop() {
                None if !waiting.over => {
                    waiting.waker = Some(context.waker().clone());
                    Poll::Pending
                }
                notice => Poll::Ready(notice),
            }
        })
        .await
    }

    /// What happened next, if it has happened already.
    pub fn try_next(&mut self) -> Option<Notice> {
        self.0.lock().pop()
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing in here panics half-way through a change.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn pop(&mut self) -> Option<Notice> {
        if self.missed > 0 {
            return Some(Notice::Lagged(std::mem::take(&mut self.missed)));
        }
        let event = self.events.pop_front()?;
        self.bytes -= bytes(&event);
        Some(Notice::Event(event))
    }
}

/// Everybody who listens.
#[derive(Debug)]
pub(crate) struct Subscribers {
    queues: Vec<Weak<Queue>>,
    events_max: usize,
    bytes_max: u64,
    over: bool,
}

impl Subscribers {
    pub(crate) fn new(events_max: usize, bytes_max: u64) -> Self {
        Self { queues: Vec::new(), events_max, bytes_max, over: false }
    }

    pub(crate) fn subscribe(&mut self, wanted: fn(&Event) -> bool) -> Subscription {
        let waiting = Mutex::new(Waiting { over: self.over, ..Waiting::default() });
        let queue = Arc::new(Queue { wanted, waiting });
        self.queues.push(Arc::downgrade(&queue));
        Subscription(queue)
    }

    /// Tells everybody, and collects whom to wake.
    pub(crate) fn tell(&mut self, event: &Event, wakers: &mut Vec<Waker>) {
        let (events_max, bytes_max) = (self.events_max.max(1), self.bytes_max);
        self.queues.retain(|queue| {
            let Some(queue) = queue.upgrade() else { return false };
            if !(queue.wanted)(event) {
                return true;
            }
            let mut waiting = queue.lock();
            waiting.bytes += bytes(event);
            waiting.events.push_back(event.clone());
            // The newest stays, however large it is.
            while waiting.events.len() > 1 && (waiting.events.len() > events_max || waiting.bytes > bytes_max) {
                let oldest = waiting.events.pop_front();
                waiting.bytes -= oldest.as_ref().map_or(0, bytes);
                waiting.missed += 1;
            }
            wakers.extend(waiting.waker.take());
            true
        });
    }

    /// Nothing more will happen.
    pub(crate) fn end(&mut self, wakers: &mut Vec<Waker>) {
        self.over = true;
        for queue in self.queues.drain(..).filter_map(|queue| queue.upgrade()) {
            let mut waiting = queue.lock();
            waiting.over = true;
            wakers.extend(waiting.waker.take());
        }
    }
}

/// What an event keeps in memory beyond itself.
fn bytes(event: &Event) -> u64 {
    match event {
        Event::Received { batch } => batch.entries.iter().map(|entry| entry.op.cost()).sum(),
        Event::Orphaned { ops, .. } => ops.iter().map(Op::cost).sum(),
        Event::Recovered { lost, .. } => lost.iter().map(|body| body.len() as u64).sum(),
        _ => 0,
    }
}
