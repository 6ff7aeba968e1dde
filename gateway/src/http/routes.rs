//! The routes, one file per resource. A route reads the request, calls a service, and answers with a view.

pub mod auth;
pub mod chats;
pub mod devices;
pub mod health;
pub mod jwks;
pub mod me;
pub mod members;
pub mod messages;
pub mod tickets;
pub mod users;
pub mod ws;
