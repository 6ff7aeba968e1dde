//! How a request is read: its caller, fields, page, cookie and origin. Each part is checked where it is read.

pub mod body;
pub mod caller;
pub mod cookie;
pub mod cross;
pub mod fields;
pub mod host;
pub mod lookup;
pub mod origin;
pub mod page;
pub mod rest;
pub mod rules;
