//! The clusters, sessions and waits that the tests share.

pub(crate) mod cluster;
pub(crate) mod proxy;
pub(crate) mod raw;
pub(crate) mod session;
pub(crate) mod wait;
