//! The cost of a verdict, by the size of the chat.

use divan::{Bencher, black_box};
use shared::{
    event::{ChatCreated, Event, Fact, History, MemberRole, MembersJoined, MessageSent},
    fold::{ChatState, apply, verdict},
    id::{Seq, UserId},
    permission::{ChatType, Role},
};
use uuid::Uuid;

fn main() {
    divan::main();
}

const SIZES: [u64; 3] = [2, 100, 10_000];

fn member(id: u64) -> MemberRole {
    let role = if id == 1 { Role::Owner } else { Role::Member };
    MemberRole { user_id: UserId::new(id).expect("in range"), role }
}

fn by_owner(fact: Fact) -> Event {
    Event { actor: member(1).user_id, device: String::new(), uuid: Uuid::nil(), fact, unique_as_of: None }
}

fn chat(size: u64) -> Option<ChatState> {
    let members = (1..=size).map(member).collect();
    let created = ChatCreated { chat_type: ChatType::Group, title: None, history: History::All, members };
    let mut chat = None;
    apply(&mut chat, Seq(1), &by_owner(Fact::ChatCreated(created))).expect("valid");
    chat
}

#[divan::bench(args = SIZES)]
fn message(bencher: Bencher, size: u64) {
    let chat = chat(size);
    let event =
        by_owner(Fact::MessageSent(MessageSent { body: "Hi".into(), reply_to: None, mentions: Vec::new() }));
    bencher.bench_local(|| verdict(black_box(chat.as_ref()), black_box(&event)));
}

#[divan::bench(args = SIZES)]
fn create(bencher: Bencher, size: u64) {
    bencher.bench_local(|| chat(black_box(size)));
}

#[divan::bench]
fn join_fifty(bencher: Bencher) {
    let chat = chat(1_000);
    let members = (2_001..2_051).map(member).collect();
    let event = by_owner(Fact::MembersJoined(MembersJoined { members }));
    bencher
        .with_inputs(|| chat.clone())
        .bench_local_values(|mut chat| apply(&mut chat, Seq(2), black_box(&event)));
}
