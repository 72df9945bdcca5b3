//! Plans are made smaller.

/// What came of it.
pub struct Shrunk;

/// Makes a plan smaller.
pub fn shrink() {}
