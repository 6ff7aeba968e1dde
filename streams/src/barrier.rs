//! Where the log ends now. A reader that has passed that point has seen everything that was acknowledged before the
//! question.
//!
//! Invariant: an answer comes from a request begun after the question. Callers that ask while one is under way
//! share the next one.

use std::{sync::Arc, time::Duration};

use shared::id::Seq;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout},
};

use crate::{
    append::Appender,
    connect::{Nats, Unavailable},
    subject::Partition,
    task::Task,
};

/// How long a caller waits. After that a read is answered as stale, and a write whose uuid is not fresh with a temporary
/// failure.
const PATIENCE: Duration = Duration::from_secs(2);

/// Callers in the queue; more of them wait for a place in it.
const QUEUE: usize = 1024;

/// The task that asks has panicked.
const STOPPED: Unavailable = Unavailable::Because("the task that asks where the log ends has stopped");

type Answer = oneshot::Sender<Result<Seq, Unavailable>>;

/// Asks for the end of one partition. Cheap to clone.
#[derive(Clone)]
pub struct Barrier {
    questions: mpsc::Sender<Answer>,
    _asks: Arc<Task>,
}

impl Barrier {
    /// Starts the task that asks; it ends with the last clone.
    pub fn start(nats: &Nats, appender: &Appender, partition: Partition) -> Self {
        let (questions, queue) = mpsc::channel(QUEUE);
        let asks = Task::spawn("barrier", serve(nats.clone(), appender.clone(), partition, queue));
        Self { questions, _asks: Arc::new(asks) }
    }

    /// The last sequence of the log, at a moment after the call began.
    ///
    /// # Errors
    /// [`Unavailable`] if it can't be proven within two seconds.
    pub async fn last_seq(&self) -> Result<Seq, Unavailable> {
        let ask = async {
            let (answer, answered) = oneshot::channel();
            self.questions.send(answer).await.map_err(|_| STOPPED)?;
            answered.await.map_err(|_| STOPPED)?
        };
        timeout(PATIENCE, ask)
            .await
            .map_err(|_| Unavailable::Because("the end of the log can't be proven in time"))?
    }
}

async fn serve(nats: Nats, appender: Appender, partition: Partition, mut queue: mpsc::Receiver<Answer>) {
    let mut waiting = Vec::new();
    while queue.recv_many(&mut waiting, QUEUE).await > 0 {
        let end = end_of_log(&nats, &appender, partition).await;
        for answer in waiting.drain(..) {
            // A caller that has given up has dropped its end, and that is no failure.
            drop(answer.send(end.clone()));
        }
    }
}

/// Asks the leader, if it can prove that it is one, and else appends: only a leader with a quorum acknowledges.
async fn end_of_log(nats: &Nats, appender: &Appender, partition: Partition) -> Result<Seq, Unavailable> {
    let asked = nats.proven_bounds(partition);
    if nats.settings.replicas == 1 {
        return Ok(asked.await?.last);
    }
    match timeout(PATIENCE / 2, asked).await {
        Ok(Ok(bounds)) => Ok(bounds.last),
        // Without a leader nobody answers.
        Ok(Err(_)) | Err(_) => Ok(appender.append_noop(partition, Instant::now() + PATIENCE / 2).await?),
    }
}
