//! How a request is read: its caller, fields, page, cookie and origin. Each part is checked where it is read.

pub mod body;
pub mod caller;
pub mod cookie;
pub mod cross;
pub mod fields;
pub mod origin;
pub mod page;
pub mod rules;
