//! Across nodes.
