//! Removes a test's streams. A client library would be the heaviest dependency here, for two requests.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

const TIMEOUT: Duration = Duration::from_secs(2);
const INBOX: &str = "_INBOX.xtask";

/// Deletes every stream whose name begins with `prefix`.
pub(super) fn delete_streams(url: &str, prefix: &str) -> Result<()> {
    let mut connection = Connection::open(url)?;
    let names = connection.request("$JS.API.STREAM.NAMES", "{}")?;
    for name in names["streams"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if name.starts_with(prefix) {
            connection.request(&format!("$JS.API.STREAM.DELETE.{name}"), "")?;
        }
    }
    Ok(())
}

struct Connection {
    reader: BufReader<TcpStream>,
}

impl Connection {
    fn open(url: &str) -> Result<Self> {
        let address = url.trim_start_matches("nats://");
        let stream = TcpStream::connect(address).with_context(|| format!("connecting to {address}"))?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        let mut connection = Self { reader: BufReader::new(stream) };
        connection.line()?;
        connection.write(&format!("CONNECT {{\"verbose\":false}}\r\nSUB {INBOX} 1\r\n"))?;
        Ok(connection)
    }

    fn request(&mut self, subject: &str, body: &str) -> Result<Value> {
        self.write(&format!("PUB {subject} {INBOX} {}\r\n{body}\r\n", body.len()))?;
        loop {
            let line = self.line()?;
            let mut words = line.split_whitespace();
            match words.next() {
                Some("MSG") => {
                    let length: usize = words.next_back().context("no length")?.parse()?;
                    let mut payload = vec![0; length + 2];
                    self.reader.read_exact(&mut payload)?;
                    return Ok(serde_json::from_slice(&payload[..length])?);
                }
                Some("PING") => self.write("PONG\r\n")?,
                Some("-ERR") => bail!("nats-server: {line}"),
                _ => {}
            }
        }
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            bail!("nats-server closed the connection");
        }
        Ok(line)
    }

    fn write(&mut self, text: &str) -> Result<()> {
        Ok(self.reader.get_mut().write_all(text.as_bytes())?)
    }
}
