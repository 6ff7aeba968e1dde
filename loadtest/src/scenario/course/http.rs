//! HTTP from the swarm's thread, which has no runtime: one blocking GET.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use anyhow::Result;

/// How long a service may take to answer.
const ASK: Duration = Duration::from_secs(5);

/// The whole answer to a GET, with its head.
pub(super) fn get(url: &str, path: &str) -> Result<String> {
    let host = url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(host)?;
    stream.set_read_timeout(Some(ASK))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}
