//! Laws of the rows: they do not depend on where batches end, on restarts, or on what a lost tail had written.

use std::collections::BTreeMap;

use shared::{
    event::Event,
    id::{Seq, UserId},
    window,
};
use sql::{
    ahead::AheadMark,
    projection::{DeadLetter, Rows, Writer, Written},
};

use crate::{
    Rng, Store, batches,
    generate::{CHATS, chat},
    history,
    store::position,
};

#[tokio::test]
async fn batches_of_any_size_give_the_same_rows() {
    let mut store = Store::open("batching").await;
    for seed in 0..12 {
        let mut rng = Rng(seed);
        let entries = history(&mut rng, 250);
        store.reset().await;
        store.apply(&entries).await;
        let whole = store.dump().await;
        for most in [1, 7, 60] {
            store.reset().await;
            for batch in batches(&mut rng, &entries, most) {
                store.apply(batch).await;
                if rng.below(5) == 0 {
                    store.restart().await;
                }
            }
            assert_eq!(store.dump().await, whole, "seed {seed}, batches of at most {most}");
        }
    }
}

#[tokio::test]
async fn messages_are_numbered_densely_and_prev_is_a_chain() {
    let mut store = Store::open("chains").await;
    for seed in 100..104 {
        let mut rng = Rng(seed);
        let entries = history(&mut rng, 400);
        store.reset().await;
        for batch in batches(&mut rng, &entries, 30) {
            store.apply(batch).await;
        }
        for id in 1..=CHATS {
            let statement =
                "SELECT seq, prev, n, kind, message_seq FROM events WHERE chat_id = $1 ORDER BY seq";
            let rows = store.raw.query(statement, &[&chat(id).as_i64()]).await.unwrap();
            let (mut head, mut n, mut message) = (0_i64, 0_i32, 0_i64);
            for row in rows {
                let (seq, kind): (i64, i16) = (row.get(0), row.get(3));
                assert_eq!(row.get::<_, i64>(1), head);
                if kind == 2 {
                    (n, message) = (n + 1, seq);
                }
                assert_eq!((row.get::<_, i32>(2), row.get::<_, i64>(4)), (n, message));
                head = seq;
            }
        }
    }
}

#[tokio::test]
async fn applying_twice_is_applying_once() {
    let mut store = Store::open("twice").await;
    let entries = history(&mut Rng(7), 100);
    store.apply(&entries[..60]).await;
    let (before, checkpoint) = (store.dump().await, store.checkpoint());
    // A second projector that believes to be the one at the start: its batch is not written.
    let other = Writer::connect(&store.db, 0).await.unwrap();
    let from = sql::Checkpoint::default();
    let written = other.write(from, entries[0].position(), &Rows::default(), 1).await.unwrap();
    assert_eq!(written, Written::Moved);
    // Nor is one whose epoch is over, although it stands at the right place.
    let past = sql::Checkpoint { epoch: checkpoint.epoch + 1, ..checkpoint };
    let written = other.write(past, entries[60].position(), &Rows::default(), 1).await.unwrap();
    assert_eq!(written, Written::Moved);
    // Nor anything that would be written with it.
    let mut rows = Rows::default();
    rows.dead_letters.push(DeadLetter {
        seq: entries[60].seq,
        id: entries[60].id,
        ts_ms: 1,
        reason: "of a test".to_owned(),
        payload: b"",
    });
    let written = other.write(past, entries[60].position(), &rows, 1).await.unwrap();
    assert_eq!(written, Written::Moved);
    assert_eq!(store.dump().await, before);
    // The session is as good as before.
    assert_eq!(other.checkpoint().await.unwrap(), checkpoint);
    store.apply(&entries[60..]).await;
}

#[tokio::test]
async fn a_lock_is_held_by_one_session_and_goes_with_it() {
    let store = Store::open("locks").await;
    let other = Writer::connect(&store.db, 0).await.unwrap();
    assert!(store.folder.writer().try_lock().await.unwrap());
    assert!(!other.try_lock().await.unwrap());
    assert!(Writer::connect(&store.db, 1).await.unwrap().try_lock().await.unwrap(), "another partition");
    drop(store.folder);
    while !other.try_lock().await.unwrap() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_cut_leaves_what_the_rest_of_the_log_gives() {
    let mut store = Store::open("cuts").await;
    for seed in 200..212 {
        let mut rng = Rng(seed);
        let entries = history(&mut rng, 250);
        let cut = position(&entries, Seq(rng.below(251)));
        store.reset().await;
        for batch in batches(&mut rng, &entries[..cut.seq.get() as usize], 40) {
            store.apply(batch).await;
        }
        let expected = store.dump().await;

        store.reset().await;
        for batch in batches(&mut rng, &entries, 40) {
            store.apply(batch).await;
        }
        assert_eq!(store.db.declare_cut(0, 0, cut, 9).await.unwrap(), Some(1));
        assert_eq!(store.dump().await, expected, "seed {seed}, cut at {}", cut.seq);
        store.restart().await;
        assert_eq!((store.checkpoint().epoch, store.checkpoint().position), (1, cut));

        // And the log goes on, with other events at the same sequences.
        let other: Vec<_> = history(&mut Rng(seed + 1_000), 250).split_off(cut.seq.get() as usize);
        if !other.is_empty() {
            store.apply(&other).await;
        }
    }
}

#[tokio::test]
async fn identities_are_found_at_or_below_a_sequence() {
    let mut store = Store::open("identities").await;
    let entries = history(&mut Rng(3), 300);
    store.apply(&entries).await;
    for seq in [0, 1, 2, 17, 150, 299, 300, 301, 100_000] {
        let found = store.db.known_at_or_below(0, Seq(seq)).await.unwrap();
        // All entries are remembered but those of no chat.
        let expected = entries.iter().rev().find(|entry| entry.seq.get() <= seq && entry.chat.is_some());
        assert_eq!(found, expected.map(streams::Entry::position), "at {seq}");
    }
}

#[tokio::test]
async fn reactions_that_an_earlier_build_told_apart_are_folded_again() {
    let mut store = Store::open("emoji").await;
    store.apply(&history(&mut Rng(11), 400)).await;
    let right = store.dump().await;
    let as_typed = "
        UPDATE checkpoints SET emoji_canonical = false;
        UPDATE reactions SET emoji = '\u{2764}' WHERE emoji = '\u{2764}\u{FE0F}';
        INSERT INTO reactions SELECT chat_id, seq, user_id, '\u{2764}\u{FE0F}', at_seq FROM reactions ON CONFLICT DO NOTHING";
    store.raw.batch_execute(as_typed).await.unwrap();
    assert_ne!(store.dump().await, right);
    assert!(store.folder.writer().refold_reactions().await.unwrap() > 0);
    let refolded = store.dump().await;
    let differing: Vec<_> = right.iter().zip(&refolded).filter(|(right, now)| right != now).take(3).collect();
    assert_eq!(differing, []);
    assert_eq!(refolded.len(), right.len());
    assert_eq!(store.folder.writer().refold_reactions().await.unwrap(), 0, "once");
}

#[tokio::test]
async fn every_command_whose_uuid_is_ahead_marks_its_user() {
    let mut store = Store::open("ahead").await;
    for seed in 300..303 {
        let mut rng = Rng(seed);
        let entries = history(&mut rng, 300);
        store.reset().await;
        for batch in batches(&mut rng, &entries, 40) {
            store.apply(batch).await;
        }
        let mut expected: Vec<(i64, i64, i64)> = Vec::new();
        let mut marks: BTreeMap<UserId, u64> = BTreeMap::new();
        for entry in entries.iter().filter(|entry| entry.chat.is_some()) {
            let Ok(event) = Event::decode(&entry.payload) else { continue };
            let Some(until) = window::ahead_until(event.uuid, entry.ts_ms) else { continue };
            expected.push((entry.seq.as_i64(), event.actor.as_i64(), until as i64));
            marks.entry(event.actor).and_modify(|mark| *mark = until.max(*mark)).or_insert(until);
        }
        assert!(expected.len() > 20);
        assert_eq!(ahead(&store).await, expected, "seed {seed}");

        let of = |mark: &AheadMark| (mark.user, mark.until_ms);
        let (checkpoint, all) = store.db.ahead_marks(0).await.unwrap();
        assert_eq!((checkpoint, all.iter().map(of).collect()), (store.checkpoint(), marks.clone()));
        let since = marks.values().min().copied().unwrap();
        let later = marks.into_iter().filter(|(_, until)| *until > since).collect::<BTreeMap<_, _>>();
        let (_, found) = store.db.ahead_marks(since).await.unwrap();
        assert_eq!(found.iter().map(of).collect::<BTreeMap<_, _>>(), later);
    }
    // A database that was filled before the table was there.
    let before = store.dump().await;
    let url = store.url();
    sql::migrations::down(&url, 4).await.unwrap();
    sql::migrations::up(&url).await.unwrap();
    assert_eq!(store.dump().await, before);
}

async fn ahead(store: &Store) -> Vec<(i64, i64, i64)> {
    let rows = store.raw.query("SELECT seq, user_id, until_ts FROM ahead ORDER BY seq", &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
}
