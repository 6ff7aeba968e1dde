use shared::id::Seq;

use crate::hub::{
    attach::{Reattached, Step},
    stage::*,
};

/// Attaches the sessions again, as their catch-ups do once their users are loaded, and reads until they are live.
fn come_back(stage: &Stage, device: &mut Device) -> Vec<String> {
    let user = device.session.user();
    if !stage.hub.knows(user) {
        stage.load_user(user.get());
    }
    assert_eq!(stage.hub.reattach(&device.session, stage.hub.epoch()), Reattached::CatchUp);
    let mut heard = device.hears();
    assert_eq!(stage.catch_up(device), Step::Live);
    heard.extend(device.hears());
    heard
}

#[test]
fn a_live_session_is_told_of_the_lost_events_and_goes_on_in_the_new_history() {
    let mut stage = Stage::with_group(&[1, 2]);
    let mut device = stage.connect(2);
    for _ in 0..3 {
        stage.append(1, 1, sent("hi"));
    }
    device.hears();
    assert_eq!(stage.lose_tail(Seq(2)).len(), 1);
    stage.append(1, 1, sent("instead"));
    assert_eq!(come_back(&stage, &mut device), ["Reset 1 to 2", "Message 3 after 2", "Live"]);
    assert_eq!(device.has(), stage.log.entitled(device.session.user(), stage.log.tip()));
    let cursor = stage.opened(&device).unwrap();
    assert_eq!((cursor.epoch, cursor.position), (1, stage.log.position(Seq(3))));
}
