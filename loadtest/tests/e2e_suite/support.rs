//! What the tests stand on.

pub(crate) mod cluster;
pub(crate) mod proxy;
pub(crate) mod session;
pub(crate) mod wait;
