//! The memory of pages: of events, messages and chats that are being made, or wait to be read by their clients.
//!
//! A page is many times larger than the request for it, so clients that ask and do not read would take all memory. Each
//! page has a place here from before it is encoded until its last byte is written, and its user's turn before that, while
//! its rows are read. Invariants: all pages together stay within the gateway's bound, and those of one user within theirs;
//! a place is given back however its page ends, since the page's own bytes hold it. A read that waits for the projection
//! takes nothing from other users.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use prometheus_client::{metrics::gauge::Gauge, registry::Registry};
use shared::id::UserId;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::metrics::{self, Counters};

/// The most bytes of a page as it is encoded, whatever its texts are: a control character takes six bytes of JSON. A
/// page that holds one item may be larger.
pub const PAGE_BYTES: usize = 1_000_000;
/// The most bytes of the stored events and messages that a page is made of. That is the memory of their rows, and in
/// most texts a stored byte is one byte of the page.
pub const STORED_BYTES: usize = 256 * 1024;
/// What is reserved for a page before its size is known. Its rows come on top while it is made.
const MAKING_BYTES: u32 = PAGE_BYTES as u32;
/// How long a page waits for its place. Pages are made and written in milliseconds; only readers that do not read keep
/// places for longer. It is longer than a read waits for the projection, so whoever asks for more pages at once than they
/// may have still gets them one after the other while the projection is away.
const PATIENCE: Duration = Duration::from_secs(3);
/// With more users than this, those without a page are forgotten.
const MANY_USERS: usize = 1_024;

#[derive(Debug, Clone, clap::Args)]
pub struct PageSettings {
    /// Memory for pages of events, messages and chats that are being made or wait to be read by their clients.
    #[arg(long, env = "MT_PAGES_BYTES", default_value_t = 64 << 20, value_parser = at_least_one_page())]
    pub pages_bytes: u32,
    /// The part of it that the requests of one user may take.
    #[arg(long, env = "MT_PAGES_USER_BYTES", default_value_t = 8 << 20, value_parser = at_least_one_page())]
    pub pages_user_bytes: u32,
}

fn at_least_one_page() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(i64::from(MAKING_BYTES)..)
}

/// There is no place for a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    #[error("too many answers wait to be read by this user")]
    User,
    #[error("too many answers wait to be read")]
    Gateway,
}

impl Full {
    const fn label(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Gateway => "gateway",
        }
    }
}

#[derive(Debug)]
pub struct Pages {
    all: Arc<Semaphore>,
    /// The places of those users who have or lately had a page.
    users: Mutex<HashMap<UserId, Arc<Semaphore>>>,
    settings: PageSettings,
    bytes: Gauge,
    refused: Counters,
}

impl Pages {
    pub fn new(settings: PageSettings, registry: &mut Registry) -> Self {
        Self {
            all: Arc::new(Semaphore::new(settings.pages_bytes as usize)),
            users: Mutex::default(),
            settings,
            bytes: metrics::add(
                registry,
                "gateway_pages_bytes",
                "Memory of pages that are made or wait to be read",
            ),
            refused: metrics::add(
                registry,
                "gateway_pages_refused",
                "Pages without a place, by whose was full",
            ),
        }
    }

    /// The user's turn to read what a page is made of. Waits a while if the user has enough pages under way.
    ///
    /// # Errors
    /// [`Full::User`].
    pub async fn turn(&self, user: UserId) -> Result<Turn<'_>, Full> {
        let own = self.take(self.of(user), Full::User).await?;
        Ok(Turn { pages: self, own })
    }

    async fn take(&self, places: Arc<Semaphore>, full: Full) -> Result<OwnedSemaphorePermit, Full> {
        // The semaphores are never closed, so the only failure is that the time is over.
        let taken = timeout(PATIENCE, places.acquire_many_owned(MAKING_BYTES)).await;
        taken.ok().and_then(Result::ok).ok_or_else(|| {
            self.refused.get_or_create(&vec![("of", full.label())]).inc();
            full
        })
    }

    fn of(&self, user: UserId) -> Arc<Semaphore> {
        let mut users = self.users.lock();
        if users.len() > MANY_USERS {
            users.retain(|_, places| Arc::strong_count(places) > 1);
        }
        let new = || Arc::new(Semaphore::new(self.settings.pages_user_bytes as usize));
        users.entry(user).or_insert_with(new).clone()
    }

    /// Whether less than a quarter is left, so that readers may not keep their pages waiting for long.
    pub fn are_short(&self) -> bool {
        self.all.available_permits() < self.settings.pages_bytes as usize / 4
    }

    /// With room for some pages.
    #[cfg(test)]
    pub(crate) fn for_tests() -> Arc<Self> {
        let settings = PageSettings { pages_bytes: 8 * MAKING_BYTES, pages_user_bytes: 4 * MAKING_BYTES };
        Arc::new(Self::new(settings, &mut Registry::default()))
    }

    /// The memory that is taken.
    #[cfg(test)]
    pub(crate) fn taken(&self) -> usize {
        self.settings.pages_bytes as usize - self.all.available_permits()
    }
}

/// A user's turn for one page.
#[derive(Debug)]
pub struct Turn<'a> {
    pages: &'a Pages,
    own: OwnedSemaphorePermit,
}

impl Turn<'_> {
    /// Takes a place for the page, which is made next. Waits a while if there is none.
    ///
    /// # Errors
    /// [`Full::Gateway`].
    pub async fn place(self) -> Result<Place, Full> {
        let all = self.pages.take(self.pages.all.clone(), Full::Gateway).await?;
        self.pages.bytes.inc_by(i64::from(MAKING_BYTES));
        Ok(Place { own: self.own, all, bytes: self.pages.bytes.clone() })
    }
}

/// The place of one page.
#[derive(Debug)]
pub struct Place {
    own: OwnedSemaphorePermit,
    all: OwnedSemaphorePermit,
    bytes: Gauge,
}

impl Place {
    /// Shrinks the place to the size of the page, which has been made. It is given back with the last handle on the
    /// bytes that are returned.
    pub fn hold(mut self, mut page: Vec<u8>) -> Bytes {
        page.shrink_to_fit();
        let spare = (MAKING_BYTES as usize).saturating_sub(page.len());
        drop((self.own.split(spare), self.all.split(spare)));
        self.bytes.dec_by(spare as i64);
        Bytes::from_owner(Page { page, _place: self })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.bytes.dec_by(self.all.num_permits() as i64);
    }
}

struct Page {
    page: Vec<u8>,
    _place: Place,
}

impl AsRef<[u8]> for Page {
    fn as_ref(&self) -> &[u8] {
        &self.page
    }
}

/// How many of the items fit into a page, from the first one on. The first one always does.
pub fn fitting(lengths: impl Iterator<Item = usize>) -> usize {
    let mut bytes = 0;
    let fits = |length: &usize| {
        bytes += length;
        bytes <= PAGE_BYTES
    };
    lengths.take_while(fits).count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAKING: u32 = MAKING_BYTES;

    fn user(id: u64) -> UserId {
        UserId::new(id).unwrap()
    }

    fn pages(all: u32, own: u32) -> Pages {
        let settings = PageSettings { pages_bytes: all * MAKING, pages_user_bytes: own * MAKING };
        Pages::new(settings, &mut Registry::default())
    }

    async fn place(pages: &Pages, of: u64) -> Result<Place, Full> {
        pages.turn(user(of)).await?.place().await
    }

    #[tokio::test(start_paused = true)]
    async fn a_user_who_reads_nothing_has_no_more_than_their_part_and_takes_it_from_nobody() {
        let pages = pages(4, 2);
        let held: Vec<Bytes> = [
            place(&pages, 1).await.unwrap().hold(vec![0; MAKING as usize]),
            place(&pages, 1).await.unwrap().hold(vec![0; MAKING as usize]),
        ]
        .into();
        assert_eq!(place(&pages, 1).await.unwrap_err(), Full::User);
        let other = place(&pages, 2).await.unwrap();
        assert_eq!((pages.taken(), pages.are_short()), (3 * MAKING as usize, false));
        let last = place(&pages, 2).await.unwrap();
        assert!(pages.are_short());
        assert_eq!(place(&pages, 3).await.unwrap_err(), Full::Gateway);
        drop((held, other, last));
        assert_eq!((pages.taken(), pages.bytes.get()), (0, 0));
    }

    #[tokio::test]
    async fn a_page_keeps_the_place_of_its_bytes_until_the_last_handle_is_gone() {
        let pages = pages(4, 2);
        let page = place(&pages, 1).await.unwrap().hold(vec![7; 1_000]);
        let rest = page.slice(900..);
        drop(page);
        assert_eq!((pages.taken(), pages.bytes.get()), (1_000, 1_000));
        assert_eq!(rest[..], [7; 100]);
        drop(rest);
        assert_eq!((pages.taken(), pages.bytes.get()), (0, 0));
    }

    #[test]
    fn a_page_ends_before_the_item_that_does_not_fit_but_has_one() {
        let check = |lengths: &[usize], expected| assert_eq!(fitting(lengths.iter().copied()), expected);
        check(&[400_000, 400_000, 200_000, 1], 3);
        check(&[PAGE_BYTES + 1, 1], 1);
        check(&[1; 7], 7);
    }
}
