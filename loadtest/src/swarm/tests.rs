//! The swarm against a server that does what a script says: a fault of the server is a breach in the report.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    sync::broadcast,
    task::JoinSet,
};
use tokio_tungstenite::{accept_async, tungstenite::Message};

use super::*;

const CHAT: u64 = 9;
const CREATED: u64 = 4;
const LIMIT: Duration = Duration::from_secs(20);

/// The fault that the server commits on one of its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// The second connection never gets the third message.
    Loses,
    /// Everybody gets the third message twice.
    Repeats,
    /// The third message is acked and goes nowhere.
    AcksOnly,
    /// The third message gets no answer.
    Silent,
}

/// A chat that everyone is in.
struct Server {
    fault: Fault,
    seq: AtomicU64,
    commands: AtomicU64,
    connections: AtomicU64,
    events: broadcast::Sender<String>,
}

impl Server {
    fn start(runtime: &Runtime, fault: Fault) -> SocketAddr {
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let server = Arc::new(Self {
            fault,
            seq: AtomicU64::new(CREATED),
            commands: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            events: broadcast::Sender::new(1_024),
        });
        runtime.spawn(async move {
            let mut sessions = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                sessions.spawn(server.clone().session(stream));
            }
        });
        address
    }

    async fn session(self: Arc<Self>, stream: TcpStream) {
        let mut socket = accept_async(stream).await.unwrap();
        let number = self.connections.fetch_add(1, Ordering::SeqCst);
        let mut events = self.events.subscribe();
        for frame in [
            json!({"type": "Welcome", "userId": number + 1, "resumed": false, "heartbeatMs": 25_000}),
            json!({"type": "Live", "cursor": "c", "replayed": 0}),
        ] {
            socket.send(Message::text(frame.to_string())).await.unwrap();
        }
        loop {
            let out = tokio::select! {
                event = events.recv() => event.ok().filter(|event| {
                    !(self.fault == Fault::Loses && number == 1 && event.contains(r#""seq":7,"#))
                }),
                received = socket.next() => match received {
                    Some(Ok(Message::Text(text))) => self.command(number, &text),
                    Some(Ok(_)) => None,
                    _ => return,
                },
            };
            if let Some(out) = out {
                socket.send(Message::text(out)).await.unwrap();
            }
        }
    }

    /// Takes a command and returns the ack.
    fn command(&self, number: u64, text: &str) -> Option<String> {
        let command: Value = serde_json::from_str(text).unwrap();
        let prev = self.seq.fetch_add(1, Ordering::SeqCst);
        let (seq, third) = (prev + 1, self.commands.fetch_add(1, Ordering::SeqCst) == 2);
        let uuid = command["uuid"].as_str().unwrap();
        let message = format!(
            r#"{{"type":"Message","chatId":{CHAT},"seq":{seq},"prev":{prev},"uuid":"{uuid}","from":{},"body":"x","ts":0}}"#,
            number + 1
        );
        let copies = match self.fault {
            Fault::Repeats if third => 2,
            Fault::AcksOnly | Fault::Silent if third => {
                self.seq.fetch_sub(1, Ordering::SeqCst);
                0
            }
            _ => 1,
        };
        for _ in 0..copies {
            self.events.send(message.clone()).unwrap();
        }
        let ack =
            format!(r#"{{"type":"Ack","uuid":"{uuid}","chatId":{CHAT},"seq":{seq},"ts":0,"dup":false}}"#);
        (self.fault != Fault::Silent || !third).then_some(ack)
    }
}

fn swarm(address: SocketAddr) -> Swarm {
    let habits = Habits {
        connects_per_s: 0.0,
        // One after the other, so that the first device is the first user.
        handshakes: 1,
        back_ms: 10,
        in_flight: 10,
        watch: 0,
        body_bytes: 5,
        seed: 1,
    };
    let devices = (0..2).map(|n| {
        let mut device = Device::new(n + 1, "token", 0, false);
        device.heads.push(Head { chat: CHAT, at: 0, seq: CREATED });
        device
    });
    let chats = vec![Chat { id: CHAT, members: vec![0, 1], base: CREATED, log: Vec::new() }];
    let gateways = vec![Gateway::resolve(&format!("http://{address}")).unwrap()];
    Swarm::new(devices.collect(), chats, gateways, habits, Arc::<Mutex<Progress>>::default()).unwrap()
}

/// Ten messages at a hundred a second, then the judgement.
fn run(fault: Fault) -> Swarm {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut swarm = swarm(Server::start(&runtime, fault));
    for at in 0..2 {
        swarm.queue(at);
        assert!(swarm.run_until(LIMIT, |swarm| swarm.live == at as u32 + 1).unwrap());
    }
    swarm.tally.window = 0..u64::MAX;
    swarm.load.start(&[(Action::Message, 100.0)], Duration::from_millis(99));
    assert!(swarm.run_until(LIMIT, |swarm| swarm.load.is_over()).unwrap());
    let expected = if matches!(fault, Fault::Silent) { 9 } else { 10 };
    assert!(swarm.run_until(LIMIT, |swarm| swarm.tally.counts.acks == expected).unwrap());
    let settled = |swarm: &Swarm| swarm.outstanding() == 0;
    if fault == Fault::None {
        assert!(swarm.run_until(LIMIT, settled).unwrap());
    } else {
        // Whatever is still on its way has arrived by then, and if not, the breach stays what it is.
        swarm.run_until(Duration::from_millis(300), settled).unwrap();
    }
    swarm.judge_heads();
    swarm.judge.close();
    swarm
}

fn breaches(fault: Fault) -> Vec<String> {
    run(fault).judge.breaches.counts.into_keys().collect()
}

#[test]
fn a_faultless_server_breaks_no_promise_and_is_timed() {
    let swarm = run(Fault::None);
    assert_eq!(swarm.judge.breaches.total(), 0, "{:?}", swarm.judge.breaches);
    let counts = &swarm.tally.counts;
    assert_eq!((counts.sent, counts.acks, counts.delivered, counts.echoes), (10, 10, 10, 10));
    assert_eq!((swarm.tally.delivery.len(), swarm.tally.ack.len()), (10, 10));
}

#[test]
fn one_lost_message_is_a_failure() {
    assert_eq!(breaches(Fault::Loses), ["Gap"]);
}

#[test]
fn one_repeated_message_is_a_failure() {
    assert_eq!(breaches(Fault::Repeats), ["Duplicated"]);
}

#[test]
fn an_ack_for_nothing_is_a_failure() {
    assert_eq!(breaches(Fault::AcksOnly), ["Lost", "WrongAck"]);
}

#[test]
fn a_command_without_an_answer_is_a_failure() {
    assert_eq!(breaches(Fault::Silent), ["Unanswered"]);
}
