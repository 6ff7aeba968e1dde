//! The last check of a run: the histories that members read over HTTP hold the messages that were acked and delivered.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Result;

use crate::{
    client::http::Api,
    oracle::{Breach, history::HistoryMessage},
    params::Params,
    provision::Account,
    swarm::Judge,
};

/// A history may say that it is stale while the projector catches up, but not for ever.
const ATTEMPTS: u32 = 60;
const RETRY: Duration = Duration::from_millis(500);

/// Reads the histories of some chats and compares them; returns how many.
///
/// # Errors
/// When a history can't be read.
pub(super) async fn check(
    judge: &mut Judge,
    params: &Params,
    accounts: &[Account],
    urls: &[String],
) -> Result<usize> {
    let Some(first) = urls.first() else { return Ok(0) };
    let api = Api::new(first)?;
    let count = params.histories.min(judge.chats.len());
    let mut sent = messages_of(judge, count);
    for n in 0..count {
        let at = n * judge.chats.len() / count;
        let chat = judge.chats[at].id;
        let members = &judge.chats[at].members;
        let reader = &accounts[members[n % members.len()] as usize];
        let api = api.with_token(&reader.access_token).at(&urls[n % urls.len()]);
        let (messages, stale) = read(&api, chat).await?;
        if stale {
            judge.breaches.add(Breach::Lost, || format!("chat {chat}: the history stays stale"));
            continue;
        }
        compare(judge, at, &sent.remove(&at).unwrap_or_default(), &messages);
    }
    Ok(count)
}

/// The acked messages of the chats that are read: sequence and number, by chat.
fn messages_of(judge: &Judge, count: usize) -> BTreeMap<usize, BTreeMap<u64, u32>> {
    let chosen: Vec<usize> = (0..count).map(|n| n * judge.chats.len() / count).collect();
    let mut by_chat: BTreeMap<usize, BTreeMap<u64, u32>> =
        chosen.iter().map(|at| (*at, BTreeMap::new())).collect();
    for (number, sent) in judge.sent.iter().enumerate() {
        if sent.acked
            && sent.kind.is_message()
            && let Some(messages) = by_chat.get_mut(&(sent.chat as usize))
        {
            messages.insert(sent.seq, number as u32);
        }
    }
    by_chat
}

async fn read(api: &Api, chat: u64) -> Result<(Vec<HistoryMessage>, bool)> {
    let mut last = api.history(chat).await;
    for _ in 0..ATTEMPTS {
        if matches!(last, Ok((_, false))) {
            break;
        }
        tokio::time::sleep(RETRY).await;
        last = api.history(chat).await;
    }
    last
}

fn compare(judge: &mut Judge, at: usize, sent: &BTreeMap<u64, u32>, messages: &[HistoryMessage]) {
    let chat = judge.chats[at].id;
    let read: BTreeMap<u64, u64> =
        messages.iter().map(|message| (message.seq, message.uuid.as_u64_pair().1)).collect();
    if read.len() != messages.len() || !messages.is_sorted_by_key(|message| message.seq) {
        judge.breaches.add(Breach::OutOfOrder, || format!("chat {chat}: the history is not in order"));
    }
    for (seq, number) in sent {
        if read.get(seq) != Some(&judge.tag(*number)) {
            judge
                .breaches
                .add(Breach::Lost, || format!("chat {chat}: {seq} was acked and is not in the history"));
        }
    }
    for (seq, tag) in &read {
        if !sent.contains_key(seq) {
            let breach = if judge.number(*tag).is_some() { Breach::Undead } else { Breach::Phantom };
            judge.breaches.add(breach, || format!("chat {chat}: {seq} in the history was not acked"));
        }
    }
}
