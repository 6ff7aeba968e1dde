//! Look-ups: the ways to learn from this server that an account exists, or what its owner is called.
//!
//! Whoever knows the id of an account may ask for its name and write to it. Ids are random, and travel only among people
//! who share a chat, or from an e-mail that is known already. What is left is to try e-mails and ids, and every such try
//! is counted here, by user and by address: a look-up by e-mail, an id of somebody with whom no chat is shared, an id in
//! a list of members that is nobody's, an e-mail at a registration that is taken. Invariants: a try is counted before
//! anything is looked up, and whoever has none left is refused whatever they ask. Of a list, one try is counted before
//! and the others after; the user owes them. An address owes nothing: people share it, and one of them could use up
//! what belongs to all for hours.

use std::collections::HashSet;

use shared::id::UserId;
use sql::accounts::{GUESSABLE_BELOW, Profile};

use crate::http::{
    answer::problem::Problem,
    limits::{Limit, address_key},
    request::caller::{Caller, Client},
    services::Services,
};

/// Ids of earlier builds, which can be guessed, are free of charge for people who share a chat, up to so many at once.
/// Looking for shared chats costs the database some milliseconds each.
const MOST_ASKED: usize = 100;

/// Counts a try by somebody who is not logged in.
///
/// # Errors
/// `rate.limited`.
pub async fn anonymous(services: &Services, client: &Client) -> Result<(), Problem> {
    Ok(services.limits.check(Limit::LookupsPerAddress, &address_key(client.address)).await?)
}

/// Counts a try by a user.
///
/// # Errors
/// `rate.limited`.
pub async fn by(services: &Services, caller: &Caller, client: &Client) -> Result<(), Problem> {
    services.limits.check(Limit::LookupsPerUser, &caller.user().to_string()).await?;
    anonymous(services, client).await
}

/// Counts the tries of a list that [`by`] did not count, or takes that one back if there were none.
async fn settle(services: &Services, caller: &Caller, client: &Client, tries: usize) {
    let (limits, user, address) = (&services.limits, caller.user().to_string(), address_key(client.address));
    if tries == 0 {
        limits.give_back(Limit::LookupsPerUser, &user).await;
        limits.give_back(Limit::LookupsPerAddress, &address).await;
    } else if tries > 1 {
        let more = u32::try_from(tries - 1).unwrap_or(u32::MAX);
        limits.owe(Limit::LookupsPerUser, &user, more).await;
        limits.drain(Limit::LookupsPerAddress, &address, more).await;
    }
}

/// The account with this id, as others see it. Free for those who share a chat with it.
///
/// # Errors
/// `rate.limited`, or the database is away.
pub async fn one(
    services: &Services,
    caller: &Caller,
    client: &Client,
    id: UserId,
) -> Result<Option<Profile>, Problem> {
    if id != caller.user() && services.db.acquainted(caller.user(), &[id]).await?.is_empty() {
        by(services, caller, client).await?;
    }
    Ok(services.db.users(&[id]).await?.pop())
}

/// Refuses ids that have no account: as members they would be nobody. Each of those is a try, and each id that can be
/// guessed. The ids are different from each other.
///
/// # Errors
/// `request.invalid`, `rate.limited`, or the database is away.
pub async fn all_exist(
    services: &Services,
    caller: &Caller,
    client: &Client,
    field: &'static str,
    users: &[UserId],
) -> Result<(), Problem> {
    if users.is_empty() {
        return Ok(());
    }
    by(services, caller, client).await?;
    let (mut guessable, random): (Vec<UserId>, Vec<UserId>) =
        users.iter().partition(|id| id.get() < GUESSABLE_BELOW);
    if !guessable.is_empty() && guessable.len() <= MOST_ASKED {
        let acquainted = services.db.acquainted(caller.user(), &guessable).await?;
        guessable.retain(|id| !acquainted.contains(id));
    }
    let known: HashSet<UserId> = services.db.users(users).await?.into_iter().map(|user| user.id).collect();
    let unknown = random.iter().filter(|id| !known.contains(id)).count();
    settle(services, caller, client, guessable.len() + unknown).await;
    if known.len() == users.len() { Ok(()) } else { Err(Problem::invalid(field, "unknown")) }
}
