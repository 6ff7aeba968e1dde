use shared::{frame::ServerFrame, id::Seq};
use streams::Partition;
use uuid::Uuid;

use crate::{
    feed::stage::until,
    hub::stage::{chat, created, user},
    socket::stage::{Served, message},
};

#[tokio::test]
async fn a_sessions_commands_to_one_chat_are_stored_in_the_order_in_which_they_came() {
    let mut served = Served::new("order").await;
    let last = served.world.append(1, 1, created(&[1, 2])).await;
    served.world.project_to(last).await;
    served.world.follow();
    served.world.stage.hub.passed(last).await;
    let mut device = served.connect(1).await;
    let uuids: Vec<Uuid> = (0..50).map(|_| Uuid::now_v7()).collect();
    for (number, uuid) in uuids.iter().enumerate() {
        served.send(&device, message(1, *uuid, &number.to_string()));
    }
    let mut frames = Vec::new();
    until("all are answered", || {
        frames.extend(device.reads(usize::MAX));
        device.session.inflight() == 0
    })
    .await;
    frames.extend(device.reads(usize::MAX));
    let acked: Vec<(Uuid, Seq)> = frames
        .iter()
        .filter_map(|frame| if let ServerFrame::Ack(ack) = frame { Some((ack.uuid, ack.seq)) } else { None })
        .collect();
    let expected: Vec<(Uuid, Seq)> = uuids.into_iter().zip((2..).map(Seq)).collect();
    assert_eq!(acked, expected);
    assert!(device.session.next_command(chat(1)).is_none(), "an idle session holds no queue");
}

#[tokio::test]
async fn a_command_that_waits_holds_up_those_to_its_chat_and_no_others() {
    let mut served = Served::new("others").await;
    served.world.append(1, 1, created(&[1])).await;
    let first = served.world.append(2, 1, created(&[1])).await;
    served.world.project_to(first).await;
    served.world.apply_to(first).await;
    let mut device = served.connect(1).await;
    served.world.loader.chat(chat(1)).await.unwrap();
    served.reads_the_logs_clock().await;
    // The projection is ahead of the hub now, so the load of a chat that is not here waits.
    served.world.append(3, 1, created(&[1])).await;
    let ahead = served.world.stage.log.tip();
    served.world.project_to(ahead).await;
    let [waits, behind, quick] = [(); 3].map(|()| Uuid::now_v7());
    served.send(&device, message(3, waits, "one"));
    served.send(&device, message(3, behind, "two"));
    served.send(&device, message(1, quick, "quick"));
    let mut end = Seq::ZERO;
    for _ in 0..1_000 {
        end = served.world.nats.bounds(Partition::FIRST).await.unwrap().last;
        if end > ahead {
            break;
        }
    }
    assert_eq!(end, ahead.next(), "only the command to the other chat was published");
    let stored = served.world.nats.read_one(Partition::FIRST, end).await.unwrap().unwrap();
    assert_eq!(stored.chat, Some(chat(1)));
    served.world.follow();
    let mut acks = Vec::new();
    until("all are answered", || {
        let frames = device.reads(usize::MAX).into_iter();
        acks.extend(frames.filter_map(|frame| match frame {
            ServerFrame::Ack(ack) => Some((ack.uuid, ack.seq)),
            _ => None,
        }));
        acks.len() == 3
    })
    .await;
    acks.sort_by_key(|(_, seq)| *seq);
    assert_eq!(acks.iter().map(|(uuid, _)| *uuid).collect::<Vec<_>>(), [quick, waits, behind]);
    assert!(served.world.stage.hub.is_member(chat(3), user(1)));
}
