use super::*;
use crate::{feed::stage::World, hub::stage::created};

async fn reads(world: &World) -> Arc<Reads> {
    let barrier = Barrier::start(&world.nats, &world.appender, Partition::FIRST);
    Reads::new(barrier, world.nats.clone())
}

async fn checkpoint(world: &World, reads: &Reads) -> Fresh<Seq> {
    let query = async || {
        let checkpoint = world.db.checkpoint(sql::PARTITION).await?;
        let seq = checkpoint.position.seq;
        Ok((checkpoint, seq))
    };
    reads.fresh(query).await.unwrap()
}

#[tokio::test]
async fn a_read_of_a_projection_that_has_everything_is_fresh_at_once() {
    let mut world = World::new("fresh", 1 << 20).await;
    let last = world.append(1, 1, created(&[1])).await;
    world.project_to(last).await;
    let reads = reads(&world).await;
    let read = checkpoint(&world, &reads).await;
    assert_eq!((read.value, read.stale), (last, false));
}

#[tokio::test]
async fn a_read_waits_until_the_projection_has_what_was_acked_before_it() {
    let mut world = World::new("waits", 1 << 20).await;
    world.append(1, 1, created(&[1])).await;
    let last = world.say(1, 1, 3).await;
    let reads = reads(&world).await;
    let db = world.db.clone();
    let query = async || {
        let checkpoint = db.checkpoint(sql::PARTITION).await?;
        let seq = checkpoint.position.seq;
        Ok((checkpoint, seq))
    };
    let projector = async {
        world.project_to(Seq(2)).await;
        reads.hint(Seq(2));
        world.project_to(last).await;
        reads.hint(last);
    };
    let (read, ()) = tokio::join!(reads.fresh(query), projector);
    let read = read.unwrap();
    assert_eq!((read.value, read.stale), (last, false));
}

#[tokio::test]
async fn a_lost_hint_costs_a_moment_and_no_more() {
    let mut world = World::new("losthint", 1 << 20).await;
    let last = world.append(1, 1, created(&[1])).await;
    let reads = reads(&world).await;
    let db = world.db.clone();
    let query = async || {
        let checkpoint = db.checkpoint(sql::PARTITION).await?;
        let seq = checkpoint.position.seq;
        Ok((checkpoint, seq))
    };
    let (read, ()) = tokio::join!(reads.fresh(query), world.project_to(last));
    assert!(!read.unwrap().stale);
}

#[tokio::test]
async fn an_answer_that_cannot_be_had_fresh_is_marked_stale() {
    let mut world = World::new("stale", 1 << 20).await;
    world.append(1, 1, created(&[1])).await;
    let reads = reads(&world).await;
    // A hint is no proof: the projection does not have what it says.
    reads.hint(Seq(1));
    let read = checkpoint(&world, &reads).await;
    assert_eq!((read.value, read.stale), (Seq::ZERO, true));
}
