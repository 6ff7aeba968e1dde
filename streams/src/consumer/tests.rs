//! A consumer against a scripted server: what a real one does too rarely to test.

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;

struct Script {
    server: DuplexStream,
    consumer: Consumer,
    inboxes: Inboxes,
}

#[derive(Default)]
struct Inboxes {
    deliveries: String,
    replies: String,
}

impl Script {
    /// A consumer after 10.
    fn start() -> Self {
        let (client, server) = duplex(1024 * 1024);
        let line = Line::new(Box::new(client), BytesMut::new(), 1024);
        let consumer = Consumer::new(line, "s".to_owned(), Layout::new("").unwrap(), Seq(10));
        Self { server, consumer, inboxes: Inboxes::default() }
    }

    async fn create(&mut self, answers: impl FnOnce(&Inboxes) -> String) -> Result<(), Broken> {
        let Self { server, consumer, inboxes } = self;
        let serve = async {
            let (mut text, mut bytes) = (String::new(), vec![0; 4096]);
            while !(text.contains("deliver_subject") && text.ends_with("}\r\n")) {
                let count = server.read(&mut bytes).await.unwrap();
                text.push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
            let inbox = |line: usize| text.lines().nth(line).unwrap().split(' ').nth(1).unwrap().to_owned();
            *inboxes = Inboxes { deliveries: inbox(0), replies: inbox(1) };
            server.write_all(answers(inboxes).as_bytes()).await.unwrap();
        };
        let (created, ()) = tokio::join!(consumer.request_creation("CHAT_0", Duration::from_secs(1)), serve);
        created
    }

    async fn created() -> Self {
        let mut script = Self::start();
        script.create(Inboxes::accepted).await.unwrap();
        script
    }

    async fn say(&mut self, text: &str) {
        self.server.write_all(text.as_bytes()).await.unwrap();
    }

    fn event(seq: u64, consumer_seq: u64) -> String {
        format!("MSG chat.0.1 1 $JS.ACK.CHAT_0.x.1.{seq}.{consumer_seq}.1700000000000000000.0 2\r\nhi\r\n")
    }

    fn control(&self, reply: &str, headers: &str) -> String {
        let block = format!("NATS/1.0 {headers}\r\n\r\n");
        format!("HMSG {} 1 {reply}{} {}\r\n{block}\r\n", self.inboxes.deliveries, block.len(), block.len())
    }

    async fn seqs(&mut self) -> Vec<u64> {
        match self.consumer.next(256).await {
            Ok(Progress::Entries(entries)) => entries.iter().map(|entry| entry.seq.get()).collect(),
            Ok(Progress::Heartbeat) => Vec::new(),
            Err(broken) => panic!("{broken}"),
        }
    }
}

impl Inboxes {
    fn accepted(&self) -> String {
        self.reply("{\"name\":\"x\"}")
    }

    fn reply(&self, json: &str) -> String {
        format!("MSG {} 2 {}\r\n{json}\r\n", self.replies, json.len())
    }
}

#[tokio::test]
async fn deliveries_that_overtake_the_creation_are_kept() {
    let mut script = Script::start();
    let answers = |inboxes: &Inboxes| Script::event(11, 1) + &Script::event(12, 2) + &inboxes.accepted();
    script.create(answers).await.unwrap();
    script.say(&Script::event(13, 3)).await;
    assert_eq!(script.seqs().await, [11, 12]);
    assert_eq!(script.seqs().await, [13]);
}

#[tokio::test]
async fn a_refused_creation_is_an_error() {
    let mut script = Script::start();
    let refused =
        |inboxes: &Inboxes| inboxes.reply("{\"error\":{\"err_code\":10059,\"description\":\"no stream\"}}");
    assert!(script.create(refused).await.is_err());
}

#[tokio::test]
async fn flow_control_is_answered_when_the_reader_comes_back_and_is_no_end() {
    let mut script = Script::created().await;
    let request = script.control("$JS.FC.x ", "100 FlowControl Request");
    script.say(&(Script::event(11, 1) + &request)).await;
    assert_eq!(script.seqs().await, [11]);
    let mut answer = [0; 64];
    let early = tokio::time::timeout(Duration::from_millis(20), script.server.read(&mut answer)).await;
    assert!(early.is_err(), "answered before the reader came back");
    // The next one comes alone: not a heartbeat, and what follows it is read.
    script.say(&(request + &Script::event(12, 2))).await;
    assert_eq!(script.seqs().await, [12]);
    let count = script.server.read(&mut answer).await.unwrap();
    assert!(answer[..count].starts_with(b"PUB $JS.FC.x 0\r\n\r\n"));
}

#[tokio::test]
async fn heartbeats_prove_that_nothing_is_missing() {
    let mut script = Script::created().await;
    let heartbeat = |script: &Script, last| {
        script.control("", &format!("100 Idle Heartbeat\r\nNats-Last-Consumer: {last}"))
    };
    script.say(&Script::event(11, 1)).await;
    assert_eq!(script.seqs().await, [11]);
    script.say(&heartbeat(&script, 1)).await;
    assert!(script.seqs().await.is_empty());
    script.say(&heartbeat(&script, 2)).await;
    assert!(matches!(script.consumer.next(256).await, Err(Broken::Gap { expected: 1, got: 2 })));
}

#[tokio::test]
async fn gaps_foreign_statuses_and_nonsense_end_it() {
    for (said, name) in [
        (Script::event(12, 1), "a gap in the log"),
        (Script::event(11, 2), "a gap in the deliveries"),
        ("MSG chat.0.1 1 2\r\nhi\r\n".to_owned(), "no place"),
        ("-ERR 'Stale Connection'\r\n".to_owned(), "an error"),
        ("HELLO\r\n".to_owned(), "nonsense"),
    ] {
        let mut script = Script::created().await;
        script.say(&said).await;
        assert!(script.consumer.next(256).await.is_err(), "{name}");
    }
    let mut script = Script::created().await;
    let deleted = script.control("", "409 Consumer Deleted");
    script.say(&deleted).await;
    assert!(matches!(script.consumer.next(256).await, Err(Broken::Ended(409))));
}

#[tokio::test]
async fn pings_are_answered() {
    let mut script = Script::created().await;
    script.say(&("PING\r\n".to_owned() + &Script::event(11, 1))).await;
    assert_eq!(script.seqs().await, [11]);
    script.say(&Script::event(12, 2)).await;
    assert_eq!(script.seqs().await, [12]);
    let mut answer = [0; 16];
    let count = script.server.read(&mut answer).await.unwrap();
    assert_eq!(&answer[..count], b"PONG\r\n");
}
