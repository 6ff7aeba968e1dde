//! What HTTP is told: the caller, the fields of a body, paging, cookies and origins, each checked where it is read.

pub mod body;
pub mod caller;
pub mod cookie;
pub mod fields;
pub mod origin;
pub mod page;
pub mod rules;
