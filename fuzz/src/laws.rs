//! What holds whatever comes: whom a session may blame, and how much it may have under way.

use antiphon::codes::{Code, Fault};
use antiphon::op::OP_OVERHEAD;
use antiphon::wire::Point;

use crate::host::End;

/// Codes with which a session may close a document though bytes of the peer led to it and the fault stands as its own:
/// that a cursor lies beyond the log's tail is what a log that has lost its tail looks like, and a peer that lies.
const UNDECIDABLE: &[Code] = &[Code::TAIL_LOST];

/// What led to an output.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Cause {
    Peer,
    Timer,
    /// The host, which does nothing that ends a session.
    Host,
    /// The host, which ends the session or refuses the peer.
    HostEnds,
}

/// A code that a session stated of itself is not its own fault, nor the fault of a peer that was honest.
pub(crate) fn judge(code: Code, cause: Cause, dishonest: bool) {
    let fault = code.fault();
    let own = cause == Cause::HostEnds || UNDECIDABLE.contains(&code);
    assert!(own || fault != Fault::Sender, "{code}, by {cause:?}, is said to be our own fault");
    assert!(own || dishonest || fault != Fault::Peer, "{code}, by {cause:?}, accuses an honest peer");
}

/// What holds after every input.
pub(crate) fn check(end: &End) {
    let (outstanding, undurable) = end.session.under_way();
    // A lone op may be over the window, and one more may have been arriving in parts when it came.
    assert!(undurable <= end.credit + 2 * (end.op + OP_OVERHEAD), "{undurable} taken and not durable");
    let logs: u64 = end.documents.values().map(|(log, _)| log.cost()).sum();
    assert!(outstanding <= logs, "{outstanding} outstanding of {logs} in all logs");
    for number in end.documents.keys() {
        if let Some(at) = end.session.frontiers(*number) {
            assert!(at.sent >= at.received && at.received >= Point::at(at.acked), "{at:?}");
            assert!(at.taken >= Point::at(at.held), "{at:?}");
        }
    }
}
