use super::*;
use crate::{
    feed::stage::{World, lost},
    hub::stage::created,
};

/// A ring that holds more than these tests append.
const LARGE_RING: usize = 1 << 20;

#[tokio::test]
async fn an_empty_log_begins_at_zero_in_epoch_zero() {
    let world = World::new("empty", LARGE_RING).await;
    let beginning = find(&world.nats, &world.db, LARGE_RING).await;
    assert_eq!((beginning.floor, beginning.last), (Position::default(), Seq::ZERO));
    assert!(beginning.cuts.is_empty());
}

#[tokio::test]
async fn a_gateway_begins_so_far_back_that_its_ring_will_be_full() {
    let mut world = World::new("back", LARGE_RING).await;
    world.append(1, 1, created(&[1])).await;
    let last = world.say(1, 1, 99).await;
    world.project_to(last).await;
    let whole = find(&world.nats, &world.db, LARGE_RING).await;
    assert_eq!((whole.floor, whole.first, whole.last), (Position::default(), Seq(1), last));
    let bytes = world.nats.bounds(Partition::FIRST).await.unwrap().bytes;
    let half = find(&world.nats, &world.db, (bytes / 2) as usize).await;
    assert!((45..=55).contains(&half.floor.seq.get()), "{half:?}");
    assert_eq!(half.floor, world.position(half.floor.seq), "with the identity of the entry there");
}

#[tokio::test]
async fn a_log_that_lost_what_the_projection_has_is_cut_before_the_gateway_begins() {
    let mut world = World::new("lostbefore", LARGE_RING).await;
    world.append(1, 1, created(&[1])).await;
    let last = world.say(1, 1, 4).await;
    world.project_to(last).await;
    let entries = world.entries.clone();
    let gone: Vec<_> = (1..=2).map(|n| lost(&entries[4], Seq(last.get() + n))).collect();
    world.fold(&gone).await;
    let beginning = find(&world.nats, &world.db, LARGE_RING).await;
    let cuts: Vec<(u32, Position)> = beginning.cuts.iter().map(|cut| (cut.epoch, cut.position)).collect();
    assert_eq!(cuts, [(1, world.position(last))]);
    // Another gateway that starts does not declare it again.
    assert_eq!(find(&world.nats, &world.db, LARGE_RING).await.cuts.len(), 1);
}
