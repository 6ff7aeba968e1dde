//! The outside view of the product: a client, an oracle that checks every promise, and load scenarios.
//!
//! Knows the product only by its public contract (HTTP, WebSocket) and by the bytes in NATS. It shares no code with
//! the services, so that it cannot share their mistakes.
//!
//! The rooms from the top; a room imports only rooms below it (`main` is above them all):
//!
//! 1. [`attack`]: one attacker within all limits; [`smoke`]: groups talk while devices drop and resume, on full clients
//! 2. [`scenario`]: the measured scenarios and their courses
//! 3. [`report`]: results: kept, printed, drawn, compared
//! 4. [`params`]: the parameters of a scenario
//! 5. [`measure`]: what the product's processes use, and the measured window
//! 6. [`swarm`]: ten thousand devices in one thread, with a compact oracle
//! 7. [`provision`]: accounts and tokens
//! 8. [`client`]: a full client of the public contract
//! 9. [`oracle`]: the judge of the full clients
//! 10. [`frame`]: the frames that the server sends
//! 11. [`target`]: where the product runs
//! 12. [`memory`]: a process's memory and CPU
//! 13. [`latency`]: latencies and their summaries
//! 14. [`clock`]: the clock of a run

pub mod attack;
pub mod client;
pub mod clock;
pub mod frame;
pub mod latency;
pub mod measure;
pub mod memory;
pub mod oracle;
pub mod params;
pub mod provision;
pub mod report;
pub mod scenario;
pub mod smoke;
pub mod swarm;
pub mod target;
