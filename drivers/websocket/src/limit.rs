//! Counting what there may be only so many of.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// So many at a time.
#[derive(Clone, Debug)]
pub(crate) struct Limit {
    max: usize,
    taken: Arc<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    count: AtomicUsize,
    returned: event_listener::Event,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub(crate) struct Permit(Arc<Taken>);

impl Limit {
    pub(crate) fn new(max: usize) -> Self {
        Self { max, taken: Arc::default() }
    }

    pub(crate) fn count(&self) -> usize {
        self.taken.count.load(Ordering::Relaxed)
    }

    /// One more, if there is one left.
    pub(crate) fn try_take(&self) -> Option<Permit> {
        let more = |count| (count < self.max).then_some(count + 1);
        let taken = self.taken.count.fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
        taken.is_ok().then(|| Permit(self.taken.clone()))
    }

    /// One more; waits until there is one left.
    pub(crate) async fn take(&self) -> Permit {
        loop {
            let returned = self.taken.returned.listen();
            if let Some(permit) = self.try_take() {
                return permit;
            }
            returned.await;
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::AcqRel);
        self.0.returned.notify(1);
    }
}
