//! Every bound of the connector, in one place.

/// The most links a packet may cross.
pub const HOPS_MAX: u8 = 32;
