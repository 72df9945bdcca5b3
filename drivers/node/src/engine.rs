//! The replica behind a lock, and what it is in touch with: outboxes of links, the storage's thread, listeners.
//!
//! Whoever has an input makes it where it arises, and holds the lock for the microseconds that the replica takes: there
//! is no mailbox and no task between. What comes of it is sorted into outboxes and queues under the same lock, and who
//! waits for those is woken once, after it: a link's task finds all frames of the turn together.

use std::collections::BTreeMap;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Waker;
use std::time::Instant;

use antiphon::codes::Code;
use antiphon::replica::{Event, Input, LinkId, Misuse, Output, Question, Replica, Ticket};
use antiphon::rng::Rng;
use antiphon::storage::Reply;
use antiphon::{Instant as Moment, Machine};
use antiphon_recorder::Recorder;
use async_executor::Executor;

use crate::config::Config;
use crate::disk::{self, Job, Jobs, Outcome, Replies};
use crate::error::Error;
use crate::events::Subscribers;
use crate::links::{Outbound, cost};
use crate::progress::{Documents, Progress};

/// What all handles, and all tasks of a node, share.
#[derive(Debug)]
pub(crate) struct Shared {
    engine: Mutex<Engine>,
    pub(crate) replies: Arc<Replies>,
    /// Something changed that somebody may be waiting for.
    pub(crate) changed: event_listener::Event,
    pub(crate) questions: async_channel::Receiver<(Ticket, Question)>,
    /// The driver's: gone when it is.
    pub(crate) executor: Weak<Executor<'static>>,
    pub(crate) config: Config,
}

/// How far a node is in being shut down.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Phase {
    Running,
    /// Links are ending, and the storage finishes.
    Draining,
    /// Nothing more is done. What the storage said at its end.
    Stopped(Result<(), Error>),
}

#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) replica: Recorder<Replica>,
    pub(crate) rng: Rng,
    pub(crate) phase: Phase,
    pub(crate) documents: Documents,
    pub(crate) subscribers: Subscribers,
    epoch: Instant,
    pub(crate) next_link: u64,
    pub(crate) links: BTreeMap<LinkId, Box<Outbound>>,
    /// Those among them that this end connected.
    pub(crate) dialled: BTreeMap<LinkId, Arc<Progress>>,
    /// `None` when the storage is no longer to be used.
    pub(crate) jobs: Option<Jobs>,
    /// Requests that the storage has not answered.
    outstanding: usize,
    questions: async_channel::Sender<(Ticket, Question)>,
    /// When the driver will look at the time by itself.
    armed: Option<Moment>,
    pub(crate) outbox_bytes: u64,
    pub(crate) outbox_bytes_max: u64,
    pub(crate) wakers: Vec<Waker>,
    /// Those who wait for `changed` have something to look at.
    stirred: bool,
}

impl Shared {
    pub(crate) fn new(
        config: Config,
        replica: Recorder<Replica>,
        rng: Rng,
        jobs: Jobs,
        replies: Arc<Replies>,
        executor: &Arc<Executor<'static>>,
    ) -> Self {
        let (asked, questions) = async_channel::bounded(config.questions_max.max(1));
        // A lower limit than two frames could not be kept: the replica sends only whole ones.
        let frame = u64::from(config.replica.session.limits.frame);
        let outbox_bytes = config.outbox_bytes.max(2 * frame);
        let engine = Engine {
            replica,
            rng,
            phase: Phase::Running,
            documents: Documents::default(),
            subscribers: Subscribers::new(config.events_max, config.events_bytes_max),
            epoch: Instant::now(),
            next_link: 0,
            links: BTreeMap::new(),
            dialled: BTreeMap::new(),
            jobs: Some(jobs),
            outstanding: 0,
            questions: asked,
            armed: None,
            outbox_bytes,
            outbox_bytes_max: config.outbox_bytes_max.max(2 * outbox_bytes),
            wakers: Vec::new(),
            stirred: false,
        };
        let (changed, executor) = (event_listener::Event::new(), Arc::downgrade(executor));
        Self { engine: Mutex::new(engine), replies, changed, questions, executor, config }
    }

    /// To look at.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Engine> {
        // The replica does not panic; if it did, what it says afterwards would still be checked by its peers.
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the engine, then everything that comes of it, and wakes whom it concerns.
    pub(crate) fn turn<T>(&self, act: impl FnOnce(&mut Engine) -> T) -> T {
        let mut engine = self.lock();
        let result = act(&mut engine);
        self.settle(engine);
        result
    }

    pub(crate) fn settle(&self, mut engine: MutexGuard<'_, Engine>) {
        engine.pump(&self.replies);
        let wakers = mem::take(&mut engine.wakers);
        let stirred = mem::take(&mut engine.stirred);
        let due = engine.replica.deadline();
        let early = due.is_some_and(|due| engine.armed.is_none_or(|armed| due < armed));
        let draining = engine.phase == Phase::Draining;
        drop(engine);
        if early || draining {
            self.replies.bell.wake();
        }
        wakers.into_iter().for_each(Waker::wake);
        if stirred {
            self.changed.notify(usize::MAX);
        }
    }

    /// An input of the app's.
    pub(crate) fn input(&self, input: Input) -> Result<(), Error> {
        self.turn(|engine| {
            engine.running()?;
            Ok(engine.input(input)?)
        })
    }

    /// Deals with what the storage answered, and with timers that are due. Returns when the driver's timer is to be set
    /// to another time; `fired`: it is not set at all.
    pub(crate) fn drive(&self, replies: &mut Vec<(Ticket, Outcome<Reply>)>, fired: bool) -> Option<Moment> {
        let set_for = {
            let mut engine = self.lock();
            // The driver is at it: nobody needs to wake it because something is due.
            let armed = engine.armed.replace(Moment::ZERO);
            armed.filter(|_| !fired)
        };
        self.replies.swap(replies);
        for (ticket, reply) in replies.drain(..) {
            // After each: what it brings is on its way before the next is looked at.
            self.turn(|engine| {
                engine.outstanding -= 1;
                engine.tell(Input::Storage { ticket, reply });
            });
        }
        self.turn(|engine| {
            if engine.replica.deadline().is_some_and(|due| due <= engine.now()) {
                engine.tell(Input::Timer);
            }
        });
        let mut engine = self.lock();
        // A timer that is too early costs less than one that is set again and again.
        let due = engine.replica.deadline().filter(|due| set_for.is_none_or(|set_for| *due < set_for));
        engine.armed = due.or(set_for);
        due
    }

    /// The time at a moment of the replica's.
    pub(crate) fn time(&self, moment: Moment) -> Instant {
        self.lock().epoch + std::time::Duration::from_micros(moment.as_micros())
    }
}

impl Engine {
    pub(crate) fn now(&self) -> Moment {
        Moment::from_micros(u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    pub(crate) fn running(&self) -> Result<(), Error> {
        if self.phase == Phase::Running { Ok(()) } else { Err(Error::Stopped) }
    }

    /// Whether there is still something to wait for.
    pub(crate) fn serving(&self) -> Result<(), Error> {
        if matches!(self.phase, Phase::Stopped(_)) { Err(Error::Stopped) } else { Ok(()) }
    }

    pub(crate) fn principal(&self, link: LinkId) -> Option<Arc<str>> {
        self.links.get(&link)?.principal.clone()
    }

    /// Whether nothing is left to do: no link, no request, no append on its way.
    pub(crate) fn is_drained(&self) -> bool {
        let appending = self.documents.names().any(|document| !self.replica.appending(document).is_done());
        self.links.is_empty() && self.outstanding == 0 && !appending
    }

    pub(crate) fn input(&mut self, input: Input) -> Result<(), Misuse> {
        self.replica.handle(self.now(), input)
    }

    /// An input that the replica takes at any time.
    pub(crate) fn tell(&mut self, input: Input) {
        let taken = self.input(input);
        debug_assert_eq!(taken, Ok(()), "the driver keeps to the replica's rules");
    }

    /// Those who wait for something should look again.
    pub(crate) fn stir(&mut self) {
        self.stirred = true;
    }

    /// Nothing more is done: everybody who waits is told.
    pub(crate) fn stop(&mut self, outcome: Result<(), Error>) {
        self.phase = Phase::Stopped(outcome);
        self.jobs = None;
        self.subscribers.end(&mut self.wakers);
        self.questions.close();
        self.replica.finish();
        self.stir();
    }

    /// Sorts what the replica wants done to those who do it.
    fn pump(&mut self, replies: &Replies) {
        while let Some(output) = self.replica.poll() {
            match output {
                Output::Transmit { link, frame } => {
                    let Some(state) = self.links.get_mut(&link) else { continue };
                    let bytes = frame.len() as u64;
                    state.queued += cost(&frame);
                    state.room = state.room.saturating_sub(bytes);
                    state.outbox.push(frame);
                    self.wakers.extend(state.sender.take());
                }
                Output::Disconnect { link, ending } => self.over(link, Some(ending), None),
                Output::Storage { ticket, request } => {
                    self.outstanding += 1;
                    let job = Job::Replica(ticket, request);
                    if self.jobs.as_ref().is_none_or(|jobs| jobs.send(job).is_err()) {
                        replies.push([(ticket, Err(String::from(disk::GONE)))]);
                    }
                }
                Output::Ask { ticket, question } => {
                    if let Err(unasked) = self.questions.try_send((ticket, question)) {
                        let (ticket, question) = unasked.into_inner();
                        let code = match question {
                            Question::Peer { .. } => Code::OVERLOADED,
                            Question::Document { .. } => Code::TOO_MANY_DOCUMENTS,
                        };
                        let answer = Err((code, String::from("too many questions wait for the host")));
                        self.tell(Input::Answer { ticket, answer });
                    }
                }
                Output::Event(event) => self.on_event(&event),
            }
        }
    }

    fn on_event(&mut self, event: &Event) {
        if let Event::Connected { link, .. } = event {
            let now = self.now();
            self.links.get_mut(link).into_iter().for_each(|state| state.live_since = Some(now));
        }
        self.stirred |= self.documents.note(event, &self.replica);
        for (link, progress) in &self.dialled {
            self.stirred |= progress.note(*link, event);
        }
        self.subscribers.tell(event, &mut self.wakers);
    }
}
