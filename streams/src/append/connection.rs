//! The connection that appends travel on, and the task that owns it.
//!
//! Invariants: every publish taken from the queue is answered exactly once; a slot is free again once its append was
//! answered, has timed out or the connection has died. A late answer to the slot's former append has another token and
//! is ignored.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot, watch},
    task::yield_now,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until},
};

use super::{
    draft::Draft,
    reply::{self, Outcome},
    stats::{AppendStats, NEXT_PATIENCE, VERDICT_PATIENCE},
};
use crate::{
    connect::{Nats, PING_INTERVAL, backoff},
    line::{self, Line},
    subject::decimal,
    target::Target,
    task::Task,
};

/// Publishes taken from the queue at once, so that they leave in one write.
const BATCH: usize = 64;

/// After a write of at least [`BUSY`] publishes, the next write waits this long (1 to 3 ms in practice), so that
/// publishes share writes. Each write wakes the server's reader and each of its consumers' writers: at thousands of
/// appends a second those wake-ups cost more than the appends.
const PACE: Duration = Duration::from_millis(1);
/// A write of fewer publishes than these is no sign of load: the next one does not wait.
const BUSY: usize = 5;

/// The one subscription of a connection.
const REPLIES: u8 = 1;

/// One attempt of an append.
pub(super) struct Publish {
    pub draft: Draft,
    pub deadline: Instant,
    pub answer: oneshot::Sender<Outcome>,
}

/// Starts the task that connects, again and again, for as long as a receiver lives. The receiver holds the queue of
/// the present connection.
pub(super) fn start(
    nats: &Nats,
    stats: Arc<AppendStats>,
) -> (watch::Receiver<Option<mpsc::Sender<Publish>>>, Task) {
    let (current, watched) = watch::channel(None);
    let window = usize::from(nats.settings.append_window);
    let ack_timeout = Duration::from_millis(nats.settings.append_ack_timeout_ms);
    let work = keep_connected(nats.clone(), window, ack_timeout, current, stats);
    (watched, Task::spawn("append", work))
}

async fn keep_connected(
    nats: Nats,
    window: usize,
    ack_timeout: Duration,
    current: watch::Sender<Option<mpsc::Sender<Publish>>>,
    stats: Arc<AppendStats>,
) {
    let (mut attempts, mut last_server) = (0, None);
    while !current.is_closed() {
        attempts += 1;
        tokio::select! {
            () = sleep(backoff(attempts)) => {}
            () = current.closed() => return,
        }
        let (line, server) = match nats.target.dial(last_server.as_deref()).await {
            Ok(dialled) => dialled,
            Err(error) => {
                tracing::warn!(%error, attempts, "no connection to append on");
                continue;
            }
        };
        stats.connects.fetch_add(1, Relaxed);
        tracing::info!(server, "connected to append");
        let born = Instant::now();
        let (sender, queue) = mpsc::channel(window);
        let through = Through { target: nats.target.clone(), server: server.clone() };
        let mut connection = Connection::new(line, through, window, ack_timeout, stats.clone());

        current.send_replace(Some(sender));
        let end = connection.run(queue, &current).await;
        current.send_replace(None);
        connection.fail_all();
        match end {
            Ok(()) => {}
            Err(End::NoVerdict) => {
                tracing::warn!(server, "no verdict of the log comes through this server");
                nats.leave(&server).await;
                // It has taken its time already, and the next one may know.
                attempts = 0;
            }
            Err(End::Lost(error)) => tracing::warn!(%error, server, "lost the connection to append on"),
        }
        last_server = Some(server);
        // The first new attempt is made at once only if the connection had lasted.
        attempts = if born.elapsed() > PING_INTERVAL { 0 } else { attempts };
    }
}

/// Why a connection is given up.
enum End {
    Lost(io::Error),
    /// It stands, and for seconds the log has not said through it what became of an append.
    NoVerdict,
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Lost(error)
    }
}

/// The server at the other end.
struct Through {
    target: Target,
    server: String,
}

struct Pending {
    token: u64,
    answer: oneshot::Sender<Outcome>,
}

/// One connection and the appends that travel on it.
struct Connection {
    line: Line,
    through: Through,
    /// Acknowledgements come to subjects under this one; behind its dot stands the append's token.
    inbox: String,
    /// An append takes a slot from its sending to its answer: there are as many as the window is wide.
    slots: Vec<Option<Pending>>,
    /// The slots that are free.
    free: Vec<usize>,
    /// Tokens in the order of their sending, to find the timed-out ones without a timer each.
    sent: VecDeque<(Instant, u64)>,
    next_round: u64,
    ack_timeout: Duration,
    stats: Arc<AppendStats>,
    /// Publishes taken from the queue, to be sent together.
    held: Vec<Publish>,
    next_write: Instant,
    /// Since when the log owes this connection a verdict.
    owed_since: Option<Instant>,
    last_heard: Instant,
    last_ping: Instant,
}

impl Connection {
    fn new(
        line: Line,
        through: Through,
        window: usize,
        ack_timeout: Duration,
        stats: Arc<AppendStats>,
    ) -> Self {
        let now = Instant::now();
        Self {
            line,
            through,
            inbox: line::inbox(),
            slots: (0..window).map(|_| None).collect(),
            free: (0..window).collect(),
            sent: VecDeque::with_capacity(window),
            next_round: 0,
            ack_timeout,
            stats,
            held: Vec::with_capacity(BATCH),
            next_write: now,
            owed_since: None,
            last_heard: now,
            last_ping: now,
        }
    }

    /// Sends and answers until the line dies or the last [`super::Appender`] is dropped.
    async fn run(
        &mut self,
        mut queue: mpsc::Receiver<Publish>,
        current: &watch::Sender<Option<mpsc::Sender<Publish>>>,
    ) -> Result<(), End> {
        self.line.subscribe(&format!("{}.*", self.inbox), REPLIES);
        let mut tick = interval((self.ack_timeout / 8).max(Duration::from_millis(5)));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let end = loop {
            self.send_held();
            if let Err(error) = self.line.flush().await {
                break Err(error.into());
            }
            self.stats.in_flight.store(self.slots.len() - self.free.len(), Relaxed);
            let room = self.free.len().min(BATCH).saturating_sub(self.held.len());
            tokio::select! {
                read = self.line.fill() => if let Err(error) = read.and_then(|()| self.hear()) {
                    break Err(error.into());
                },
                taken = queue.recv_many(&mut self.held, room), if room > 0 => {
                    // The tasks that are ready now may append as well: their publishes leave in the same write.
                    yield_now().await;
                    self.held.extend(std::iter::from_fn(|| queue.try_recv().ok()).take(room - taken));
                }
                () = sleep_until(self.next_write), if !self.held.is_empty() => {}
                _ = tick.tick() => if let Err(error) = self.check() {
                    break Err(error);
                },
                () = current.closed() => break Ok(()),
            }
        };
        queue.close();
        let unsent = self.held.drain(..).chain(std::iter::from_fn(|| queue.try_recv().ok()));
        unsent.for_each(|publish| answer(publish.answer, Outcome::NotSent));
        end
    }

    /// Sends the publishes that were taken from the queue, unless the pause after a busy write still lasts.
    fn send_held(&mut self) {
        let now = Instant::now();
        if self.held.is_empty() || now < self.next_write {
            return;
        }
        if self.held.len() >= BUSY {
            self.next_write = now + PACE;
        }
        let mut held = std::mem::take(&mut self.held);
        held.drain(..).for_each(|publish| self.send(publish));
        self.held = held;
    }

    fn send(&mut self, publish: Publish) {
        let now = Instant::now();
        if publish.answer.is_closed() || publish.deadline <= now {
            return answer(publish.answer, Outcome::NotSent);
        }
        if publish.draft.size() > self.line.max_payload() {
            return answer(publish.answer, Outcome::Refused(reply::Refusal::TooLarge));
        }
        let Some(slot) = self.free.pop() else { return answer(publish.answer, Outcome::NotSent) };
        let token = self.next_round * self.slots.len() as u64 + slot as u64;
        self.next_round += 1;
        let draft = &publish.draft;
        self.line.request(draft.subject(), &self.inbox, token, draft.headers(), draft.payload());
        self.slots[slot] = Some(Pending { token, answer: publish.answer });
        self.stats.sent();
        self.owed_since.get_or_insert(now);
        self.sent.push_back((now, token));
    }

    /// Answers the appends whose acknowledgements have arrived.
    fn hear(&mut self) -> io::Result<()> {
        self.last_heard = Instant::now();
        while let Some(message) = self.line.message()? {
            let token = message.subject.rsplit(|byte| *byte == b'.').next().and_then(decimal);
            let Some(token) = token else { continue };
            let slot = (token % self.slots.len() as u64) as usize;
            if let Some(pending) = self.slots[slot].take_if(|pending| pending.token == token) {
                let outcome = reply::read(message);
                self.free.push(slot);
                if outcome.is_verdict() {
                    if self.stats.is_overdue() {
                        self.through.target.come_back(&self.through.server);
                    }
                    let others = self.free.len() < self.slots.len();
                    self.stats.judged(others);
                    self.owed_since = others.then(Instant::now);
                }
                answer(pending.answer, outcome);
            }
        }
        Ok(())
    }

    /// Gives up appends whose acknowledgement is overdue, and the line if it looks cut.
    fn check(&mut self) -> Result<(), End> {
        let now = Instant::now();
        while let Some((sent, token)) = self.sent.front().copied() {
            let slot = (token % self.slots.len() as u64) as usize;
            let waits = self.slots[slot].as_ref().is_some_and(|pending| pending.token == token);
            if !waits {
                self.sent.pop_front();
                continue;
            }
            if now.duration_since(sent) < self.ack_timeout {
                break;
            }
            self.sent.pop_front();
            if let Some(pending) = self.slots[slot].take() {
                answer(pending.answer, Outcome::Unknown);
                self.free.push(slot);
            }
            // An overdue acknowledgement and not a byte since it was sent: the line is cut, not slow.
            if self.last_heard < sent {
                return Err(io::Error::from(io::ErrorKind::TimedOut).into());
            }
        }
        if let Some(owed) = self.owed_since.map(|since| now.duration_since(since)) {
            let patience =
                if self.stats.owed_for() > owed + NEXT_PATIENCE { NEXT_PATIENCE } else { VERDICT_PATIENCE };
            if owed > patience {
                return Err(End::NoVerdict);
            }
        }
        let silence = now.duration_since(self.last_heard);
        if silence > PING_INTERVAL * 2 {
            return Err(io::Error::from(io::ErrorKind::TimedOut).into());
        }
        if silence > PING_INTERVAL && now.duration_since(self.last_ping) > PING_INTERVAL {
            self.last_ping = now;
            self.line.ping();
        }
        Ok(())
    }

    /// Answers the appends in flight when the line has died.
    fn fail_all(&mut self) {
        for pending in self.slots.iter_mut().filter_map(Option::take) {
            answer(pending.answer, Outcome::Unknown);
        }
        self.stats.in_flight.store(0, Relaxed);
    }
}

/// Answers a caller. One that has given up has dropped its end, and that is no failure.
fn answer(to: oneshot::Sender<Outcome>, outcome: Outcome) {
    drop(to.send(outcome));
}
