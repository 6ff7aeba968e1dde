//! Presence, typing and receipts as clients see them: real gateways, presence instances and sockets.

mod kills;
mod online;
mod receipts;
mod socket;
mod typing;
mod world;
