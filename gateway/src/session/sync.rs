//! The locks and atomics of the [`outlet`](super::outlet). A model checker puts its own in their place.

pub(super) use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};

pub(super) use futures_util::task::AtomicWaker;
pub(super) use parking_lot::{Mutex, MutexGuard};
