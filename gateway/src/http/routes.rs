//! The routes, one file a resource. A route reads the request, asks a service, and answers.

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
