//! The accounts and chats of a run, made before anything is measured.

use std::collections::HashSet;

use anyhow::{Context, Result};
use futures_util::{StreamExt, TryStreamExt, stream};
use rand::{SeedableRng, rngs::SmallRng, seq::SliceRandom};
use serde_json::json;

use crate::{
    client::http::Api,
    params::Params,
    provision::Account,
    swarm::{Chat, Device, Head},
};

/// Chats created at a time.
const PARALLEL: usize = 64;
/// A direct chat's and a group's number in the protocol.
const DIRECT: u8 = 1;
const GROUP: u8 = 2;

/// Devices that know their chats and where these begin.
#[derive(Debug)]
pub(super) struct Population {
    pub devices: Vec<Device>,
    pub chats: Vec<Chat>,
}

/// The members of each chat, by their index.
fn plan(params: &Params) -> Vec<Vec<u32>> {
    let mut rng = SmallRng::seed_from_u64(params.seed);
    let mut users: Vec<u32> = (0..params.sockets as u32).collect();
    let mut chats: Vec<Vec<u32>> = Vec::new();
    let mut known = HashSet::new();
    let rounds = [(params.chats_per_user, params.members), (params.direct_chats_per_user, 2)];
    let rounds = rounds.into_iter().flat_map(|(times, members)| std::iter::repeat_n(members, times));
    for (round, size) in rounds.enumerate() {
        if round > 0 {
            users.shuffle(&mut rng);
        }
        for members in users.chunks(size) {
            let mut members = members.to_vec();
            // A rest of one joins the chat before; two who met before have their direct chat already.
            if let ([alone], Some(last)) = (members.as_slice(), chats.last_mut()) {
                if size > 2 || params.speakers > 0 {
                    last.push(*alone);
                }
                continue;
            }
            members.sort_unstable();
            if size == 2 && !known.insert(members.clone()) {
                continue;
            }
            chats.push(members);
        }
    }
    if params.speakers > 0 {
        for (at, members) in chats.iter_mut().enumerate() {
            members.push((params.sockets + at % params.speakers) as u32);
        }
    }
    chats
}

/// Creates the chats at all gateways.
///
/// # Errors
/// When a chat is refused.
pub(super) async fn populate(params: &Params, accounts: &[Account], urls: &[String]) -> Result<Population> {
    let api = Api::new(&urls[0])?;
    let chats: Vec<Chat> = stream::iter(plan(params).into_iter().enumerate())
        .map(|(at, members)| create(&api, accounts, &urls[at % urls.len()], members))
        .buffered(PARALLEL)
        .try_collect()
        .await
        .context("create the chats (are the limits off? see loadtest/scenarios/README.md)")?;
    let mut devices: Vec<Device> = accounts
        .iter()
        .enumerate()
        .map(|(at, account)| {
            Device::new(account.user_id, &account.access_token, at % urls.len(), at >= params.sockets)
        })
        .collect();
    for (at, chat) in chats.iter().enumerate() {
        for member in &chat.members {
            let head = Head { chat: chat.id, at: at as u32, seq: chat.base };
            devices[*member as usize].heads.push(head);
        }
    }
    for device in &mut devices {
        device.heads.sort_unstable_by_key(|head| head.chat);
    }
    Ok(Population { devices, chats })
}

async fn create(api: &Api, accounts: &[Account], url: &str, members: Vec<u32>) -> Result<Chat> {
    let ids: Vec<u64> = members.iter().map(|member| accounts[*member as usize].user_id).collect();
    let creator = api.with_token(&accounts[members[0] as usize].access_token).at(url);
    let body = if members.len() == 2 {
        json!({"type": DIRECT, "memberIds": [ids[1]]})
    } else {
        json!({"type": GROUP, "memberIds": ids, "title": "load"})
    };
    let chat = creator.post("/v1/chats", &body).await?.ok()?;
    let id = chat["id"].as_u64().context("a chat without an id")?;
    let base = chat["lastSeq"].as_u64().context("a chat without lastSeq")?;
    Ok(Chat { id, members, base, log: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(sockets: usize, members: usize, chats_per_user: usize, speakers: usize) -> Vec<Vec<u32>> {
        plan(&Params { sockets, members, chats_per_user, speakers, ..Params::default() })
    }

    #[test]
    fn everyone_has_the_chats_that_were_asked_for() {
        let chats = of(1_000, 20, 20, 10);
        assert_eq!(chats.len(), 1_000);
        let mut count = vec![0; 1_010];
        for member in chats.iter().flatten() {
            count[*member as usize] += 1;
        }
        assert!(count[..1_000].iter().all(|chats| *chats == 20));
        assert!(count[1_000..].iter().all(|chats| *chats == 100));
    }

    #[test]
    fn direct_chats_are_of_two_and_no_pair_has_two() {
        let chats = of(101, 2, 5, 0);
        assert!(chats.iter().all(|members| members.len() == 2 && members[0] < members[1]));
        let distinct: HashSet<_> = chats.iter().collect();
        assert_eq!(distinct.len(), chats.len());
    }

    #[test]
    fn a_rest_of_one_joins_a_group() {
        let chats = of(11, 5, 1, 1);
        assert_eq!(chats.iter().map(Vec::len).collect::<Vec<_>>(), [6, 7]);
    }
}
