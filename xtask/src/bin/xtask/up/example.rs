//! What `up` prints when all is ready: the addresses, and something to paste.

use std::fmt::Write as _;
use std::path::Path;

use super::backing::{Backing, LOGS, PASSWORD};
use super::fleet::Fleet;

pub(crate) fn text(fleet: &Fleet, backing: &Backing, data: &Path) -> String {
    let mut text = String::from("\nMini-Telegram is up.\n\n");
    let services = fleet.all().map(|(name, addr)| (name.to_owned(), addr)).chain(fleet.operators());
    let rows = services.map(|(name, addr)| (name, format!("http://{addr}"))).chain(
        [
            ("nats", backing.nats.shown()),
            ("postgres", backing.postgres.shown()),
            ("redis", backing.redis.shown()),
            ("password", format!("of all three: in {}", data.join(PASSWORD).display())),
            ("logs", data.join(LOGS).to_string_lossy().into_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    for (name, value) in rows {
        // Writing to a String can't fail.
        writeln!(text, "  {name:14} {value}").ok();
    }
    if let Some(gateway) = fleet.gateways().next() {
        text.push_str(&EXAMPLE.replace("GATEWAY", &gateway.to_string()));
    }
    text
}

/// Nothing in it but curl, sed and sh. The e-mails hold a number, so that it can be pasted twice.
const EXAMPLE: &str = r#"
Paste this into another terminal (a group of two, one message, the history):

  API=http://GATEWAY; N=$RANDOM
  register() { curl -sS $API/v1/auth/register -H 'content-type: application/json' \
    -d "{\"email\":\"$1$N@example.com\",\"password\":\"correct horse\",\"displayName\":\"$1\"}"; }
  ADA=$(register ada | sed -E 's/.*"accessToken":"([^"]+)".*/\1/')
  BOB=$(register bob)
  BOB_ID=$(echo "$BOB" | sed -E 's/.*"user":\{[^}]*"id":([0-9]+).*/\1/')
  CHAT=$(curl -sS $API/v1/chats -H "authorization: Bearer $ADA" -H 'content-type: application/json' \
    -d "{\"type\":2,\"title\":\"tea\",\"memberIds\":[$BOB_ID]}" | sed -E 's/^\{"id":([0-9]+).*/\1/')
  curl -sS $API/v1/chats/$CHAT/messages -H "authorization: Bearer $ADA" -H 'content-type: application/json' \
    -d "{\"uuid\":\"$(cat /proc/sys/kernel/random/uuid)\",\"body\":\"Hello, World!\"}"; echo
  curl -sS $API/v1/chats/$CHAT/messages -H "authorization: Bearer $ADA"; echo
  echo "ws://GATEWAY/v1/ws?token=$ADA&device=web"    # for any WebSocket client, such as websocat
"#;
