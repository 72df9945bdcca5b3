//! Nodes in a hub.
