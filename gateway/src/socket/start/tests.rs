use shared::id::EventId;

use super::*;
use crate::{
    feed::stage::until,
    hub::stage::{created, sent, user},
    socket::stage::Served,
};

/// A group of users 1 and 2 with four messages, which the hub has.
async fn group(name: &str) -> Served {
    let mut served = Served::new(name).await;
    served.world.append(1, 1, created(&[1, 2])).await;
    let last = served.world.say(1, 1, 4).await;
    served.world.project_to(last).await;
    served.world.apply_to(last).await;
    served
}

async fn judge(served: &Served, cursor: Cursor) -> Option<Resume> {
    resume(&served.services, Some(Ok(cursor))).await
}

const INVALID: Option<Resume> = Some(Resume::Refused(Code::CursorInvalid));

#[tokio::test]
async fn without_a_cursor_a_session_begins_afresh() {
    let served = Served::new("fresh").await;
    assert_eq!(resume(&served.services, None).await, Some(Resume::Fresh));
    assert_eq!(resume(&served.services, Some(Err(Invalid))).await, INVALID);
}

#[tokio::test]
async fn a_cursor_is_taken_if_the_log_has_the_entry_that_it_names() {
    let served = group("named").await;
    for seq in 1..=5 {
        let cursor = served.world.cursor(Seq(seq));
        assert_eq!(judge(&served, cursor).await, Some(Resume::From(cursor)));
    }
    let other = Position { id: EventId(7), ..served.world.position(Seq(3)) };
    assert_eq!(judge(&served, Cursor { epoch: 0, position: other }).await, INVALID);
}

#[tokio::test]
async fn a_cursor_below_the_oldest_event_is_expired() {
    let served = group("expired").await;
    served.services.epochs.set_first(Seq(4));
    let expired = Some(Resume::Refused(Code::CursorExpired));
    assert_eq!(judge(&served, served.world.cursor(Seq(2))).await, expired);
    let oldest = served.world.cursor(Seq(3));
    assert_eq!(judge(&served, oldest).await, Some(Resume::From(oldest)));
}

#[tokio::test]
async fn a_cursor_from_a_gateway_that_is_ahead_waits_for_the_hub() {
    let mut served = group("ahead").await;
    let ahead = served.world.append(1, 1, sent("news")).await;
    served.world.read().await;
    let cursor = served.world.cursor(ahead);
    let services = served.services.clone();
    let judged = tokio::join!(resume(&services, Some(Ok(cursor))), served.world.apply_to(ahead));
    assert_eq!(judged.0, Some(Resume::From(cursor)));
}

#[tokio::test]
async fn a_cursor_beyond_what_this_gateway_has_is_not_judged() {
    let served = group("beyond").await;
    let beyond = Position { seq: Seq(100), id: EventId(100) };
    assert_eq!(
        judge(&served, Cursor { epoch: 0, position: beyond }).await,
        None,
        "another gateway may have it"
    );
}

#[tokio::test]
async fn a_cursor_of_an_epoch_that_is_not_on_record_is_invalid() {
    let served = group("norecord").await;
    let position = served.world.position(Seq(3));
    assert_eq!(judge(&served, Cursor { epoch: 1, position }).await, INVALID);
    let cursor = served.world.cursor(Seq(3));
    assert_eq!(judge(&served, cursor).await, Some(Resume::From(cursor)), "others are not affected");
}

#[tokio::test]
async fn a_cursor_of_a_later_epoch_on_record_waits_until_the_hub_has_entered_it() {
    let served = group("later").await;
    let cut = served.world.position(Seq(5));
    // Declared by another gateway: this one has not heard of it.
    served.world.db.declare_cut(sql::PARTITION, 0, cut, 0).await.unwrap();
    let cursor = Cursor { epoch: 1, position: cut };
    let enters = async {
        until("it has learned of the cut", || served.services.epochs.current() == 1).await;
        served.world.stage.hub.cut(cut, 1);
    };
    assert_eq!(tokio::join!(judge(&served, cursor), enters).0, Some(Resume::From(cursor)));
}

#[tokio::test]
async fn a_gateway_that_does_not_enter_a_cursors_epoch_in_time_cannot_judge_it() {
    let served = group("intime").await;
    let cut = served.world.position(Seq(5));
    served.world.db.declare_cut(sql::PARTITION, 0, cut, 0).await.unwrap();
    assert_eq!(judge(&served, Cursor { epoch: 1, position: cut }).await, None);
    // Nor any other, now that it knows of the cut.
    assert_eq!(judge(&served, served.world.cursor(Seq(3))).await, None);
}

#[tokio::test]
async fn a_session_is_told_whether_its_cursor_was_taken_and_why_not() {
    let served = group("told").await;
    let device = served.world.stage.device(2, Seq::ZERO);
    let welcome_of = |resume: &Resume| {
        welcome(&served.services, &device.session, resume);
        crate::session::stage::frames(&device.session)
    };
    let taken = welcome_of(&Resume::From(served.world.cursor(Seq(3))));
    assert!(matches!(&taken[..], [ServerFrame::Welcome(welcome)] if welcome.resumed), "{taken:?}");
    let fresh = welcome_of(&Resume::Fresh);
    assert!(matches!(&fresh[..], [ServerFrame::Welcome(welcome)] if !welcome.resumed), "{fresh:?}");
    let refused = welcome_of(&Resume::Refused(Code::CursorExpired));
    assert!(
        matches!(&refused[..], [ServerFrame::Welcome(welcome), ServerFrame::Error(error)]
            if !welcome.resumed && error.code == "cursor.expired" && error.uuid.is_none()),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_session_of_a_user_who_is_not_loaded_starts_and_gets_what_it_missed() {
    let served = group("unloaded").await;
    let mut device = served.world.stage.device(2, Seq(2));
    attach(&served.services, &device.session, &Resume::From(served.world.cursor(Seq(2)))).await;
    served.world.until_live(&mut device).await;
    served.world.assert_complete(&device, Seq(5));
}

#[tokio::test]
async fn a_session_with_a_cursor_of_a_former_epoch_is_reset_and_goes_on() {
    let mut served = group("former").await;
    let cut = served.world.position(Seq(4));
    let former = served.world.cursor(Seq(3));
    served.services.epochs.declare(0, cut, 0).await.unwrap();
    served.world.stage.hub.cut(cut, 1);
    let last = served.world.stage.log.tip();
    served.world.apply_to(last).await;
    let mut device = served.world.stage.device(2, Seq(3));
    let judged = judge(&served, former).await.unwrap();
    assert_eq!(judged, Resume::From(former));
    attach(&served.services, &device.session, &judged).await;
    let mut told = Vec::new();
    until("it is live", || {
        told.extend(device.hears());
        told.last().is_some_and(|line| line == "Live")
    })
    .await;
    assert_eq!(told.first().map(String::as_str), Some("Reset 1 to 4"), "{told:?}");
    assert_eq!(device.session.user(), user(2));
    assert_eq!(device.session.closing(), None);
}
