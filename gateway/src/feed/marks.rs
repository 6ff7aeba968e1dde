//! Loads the marks of users whose uuids were ahead of the log's time, for a hub that begins in the middle of the log:
//! from the projection, and from the log itself where the projection lags behind the ring.

use shared::{event::Head, window::ahead_until};
use streams::{Nats, Partition, Scan};

use crate::{command::Failure, hub::Hub};

/// A mark that is earlier than the log's time by more than this makes no uuid look older than it is: the dedupe window
/// is two minutes. A day allows for a log whose clock was set back.
const PAST_MS: u64 = 24 * 3_600 * 1_000;

/// Loads the marks that the hub misses.
///
/// # Errors
/// Temporary; nothing was loaded.
pub(super) async fn load(hub: &Hub, db: &sql::Db, nats: &Nats) -> Result<(), Failure> {
    let Some(floor) = hub.marks_missing() else { return Ok(()) };
    let unavailable = |_| Failure::log_unavailable();
    // An entry that the log no longer keeps has no time, and then all marks are loaded.
    let at_floor = nats.read_one(Partition::FIRST, floor).await.map_err(unavailable)?;
    let since_ms = at_floor.map_or(0, |entry| entry.ts_ms.saturating_sub(PAST_MS));
    let (checkpoint, marks) = db.ahead_marks(since_ms).await?;
    let mut marks: Vec<_> = marks.iter().map(|mark| (mark.user, mark.until_ms)).collect();
    let mut scan = Scan::new(nats, Partition::FIRST, checkpoint.position.seq, floor);
    while let Some(entries) = scan.next().await.map_err(unavailable)? {
        for entry in entries.iter().filter(|entry| entry.chat.is_some()) {
            match Head::read(&entry.payload) {
                Ok((head, _)) => {
                    marks.extend(ahead_until(head.uuid, entry.ts_ms).map(|until| (head.actor, until)));
                }
                Err(error) if error.is_corrupt() => {}
                // An event of a newer build may mark somebody.
                Err(_) => return Err(Failure::log_unavailable()),
            }
        }
    }
    hub.install_marks(marks, floor);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{feed::stage::World, hub::stage::*};

    #[tokio::test]
    async fn a_gateway_that_begins_in_the_middle_of_the_log_has_the_marks_of_what_is_older() {
        let mut world = World::new("marks", 1 << 20).await;
        world.append(1, 1, created(&[1, 2, 3])).await;
        let projected = world.append_ahead(1, 1, sent("projected"), 150_000).await;
        let lagging = world.append_ahead(1, 2, sent("after the checkpoint"), 150_000).await;
        let floor = world.say(1, 3, 1).await;
        world.project_to(projected.seq).await;
        world.read().await;
        world.stage.hub.begin(world.position(floor), 0);
        let marked =
            |actor, of: &streams::Entry| world.stage.hub.standing(user(actor), of.ts_ms + 100_000).is_marked;
        assert_eq!(marked(1, &projected), None);
        load(&world.stage.hub, &world.db, &world.nats).await.unwrap();
        assert_eq!((marked(1, &projected), marked(2, &lagging)), (Some(true), Some(true)));
        assert_eq!(marked(3, &lagging), Some(false));
    }
}
