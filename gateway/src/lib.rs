//! The gateway: authenticates clients, appends their commands to the log, and feeds their devices from it.

pub mod command;
