//! Redis or Valkey: its arguments and its readiness.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::options::Options;
use super::password::write_private;
use crate::binaries::Binary;
use crate::process::Launch;

const CONFIG: &str = "redis.conf";

pub(super) fn launch(
    binary: &Binary,
    dir: &Path,
    port: u16,
    options: &Options,
    log: &Path,
) -> Result<Launch> {
    // What is in it can be lost: a snapshot a minute spares a restart the rebuild, and that is all it is for.
    let save = if options.throwaway { "" } else { "60 1" };
    let mut launch = Launch::new(&binary.path, log);
    if let Some(password) = &options.password {
        let config = dir.join(CONFIG);
        let text = format!("# Written at every start.\nrequirepass {}\n", password.reveal());
        write_private(&config, &text)?;
        launch = launch.args([config.to_string_lossy()]);
    }
    Ok(launch
        .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--dir", &dir.to_string_lossy()])
        .args(["--daemonize", "no", "--appendonly", "no", "--save", save])
        .args(options.extra.clone()))
}

/// A server that asks for the password is ready, too.
pub(super) fn ready(port: u16) -> bool {
    ping(port).is_ok_and(|answer| answer == *b"+PONG" || answer == *b"-NOAU")
}

fn ping(port: u16) -> std::io::Result<[u8; 5]> {
    let timeout = Duration::from_secs(1);
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.write_all(b"PING\r\n")?;
    let mut answer = [0; 5];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}
