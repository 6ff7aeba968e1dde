//! The connections of clients, counted by the network that they come from.
//!
//! A connection begins as a stranger's and stops being one with its first valid token. Invariants: no network has more
//! connections, strangers' connections or upgrades in progress than its bounds; strangers have at most half of all places.
//! Once they have that half, or all places are taken, a new connection takes the place of the oldest stranger: it may be
//! that of somebody with an account, who shows a token at once. So whoever has no account can't keep those out that have
//! one. What is counted is given back when its guard is dropped.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use ipnet::{IpNet, Ipv6Net};
use parking_lot::Mutex;
use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};
use tokio::sync::Notify;

use super::metrics::{self, Counters};

#[derive(Debug, Clone, clap::Args)]
pub struct AddressSettings {
    /// Connections of all clients, WebSockets included; by default and at most as many as the descriptors of the process
    /// allow.
    #[arg(long, env = "MT_MAX_CONNECTIONS")]
    pub max_connections: Option<usize>,
    /// Connections of one address, WebSockets included; of IPv6 a /64 counts as one, and a /48 has eight times
    /// as many. Trusted proxies have no bound: behind them the WebSockets of the address that they name are counted.
    #[arg(long, env = "MT_ADDRESS_CONNECTIONS", default_value_t = 4_096)]
    pub address_connections: u32,
    /// Those of them that have not shown a valid token yet.
    #[arg(long, env = "MT_ADDRESS_STRANGERS", default_value_t = 512)]
    pub address_strangers: u32,
    /// WebSockets of one address that are being opened.
    #[arg(long, env = "MT_ADDRESS_UPGRADES", default_value_t = 512)]
    pub address_upgrades: u32,
}

/// A /48 may have this many times what a /64 has: providers give one customer as much as a /48, and that holds 65,536
/// of the others.
const PER_SITE: u32 = 8;
/// Connections that were told to end may exist beyond all places until they have ended. Descriptors are kept for them.
const ENDING: u32 = 64;
/// So many of the oldest strangers are asked whether they wait for no answer, before the oldest has to go anyway.
const ASKED: usize = 32;

/// Why a connection is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The address has its connections.
    Address,
    /// The address has its connections without a valid token.
    AddressStrangers,
    /// The address opens enough WebSockets at the moment.
    AddressUpgrades,
    /// All connections are taken, and none of them is a stranger's.
    All,
}

impl Refused {
    const fn label(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::AddressStrangers => "address_strangers",
            Self::AddressUpgrades => "address_upgrades",
            Self::All => "all",
        }
    }

    /// Whether the client's own address is the reason, and not all clients together.
    pub const fn is_own(self) -> bool {
        matches!(self, Self::Address | Self::AddressStrangers | Self::AddressUpgrades)
    }
}

/// How many there are of each kind: of one network, or of all.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Counts {
    open: u32,
    strangers: u32,
    upgrades: u32,
}

#[derive(Debug, Default)]
struct Table {
    networks: HashMap<IpNet, Counts>,
    all: Counts,
    /// The connections of strangers, the oldest first.
    strangers: BTreeMap<u64, (Option<IpAddr>, Arc<Stranger>)>,
    /// The number of the next connection.
    next: u64,
}

#[derive(Debug)]
pub struct Addresses {
    table: Mutex<Table>,
    settings: AddressSettings,
    most: u32,
    open: Gauge,
    strangers: Gauge,
    ended: Counter,
    refused: Counters,
}

impl Addresses {
    /// `descriptors`: how many connections the process can have.
    pub fn new(settings: AddressSettings, descriptors: usize, registry: &mut Registry) -> Self {
        let most = settings.max_connections.unwrap_or(usize::MAX).min(descriptors);
        Self {
            table: Mutex::default(),
            settings,
            most: u32::try_from(most).unwrap_or(u32::MAX),
            open: metrics::add(
                registry,
                "gateway_connections",
                "Connections of clients, WebSockets included",
            ),
            strangers: metrics::add(
                registry,
                "gateway_connections_strangers",
                "Connections of clients that have shown no valid token",
            ),
            ended: metrics::add(
                registry,
                "gateway_connections_strangers_ended",
                "Connections without a valid token that were ended for newer ones",
            ),
            refused: metrics::add(
                registry,
                "gateway_connections_refused",
                "Connections not taken, by reason",
            ),
        }
    }

    /// Counts a connection from this address. `None`: it is a trusted proxy's, which many clients share.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn accept(self: &Arc<Self>, address: Option<IpAddr>) -> Result<(Connection, Arc<Stranger>), Refused> {
        let network = address.map(network);
        let stranger = Arc::new(Stranger::default());
        let number = self.count(|table| {
            self.check_connections(table, network)?;
            let strangers = self.settings.address_strangers;
            if table.has_all(network, strangers, |counts| counts.strangers) {
                return Err(Refused::AddressStrangers);
            }
            self.make_room(table, self.most / 2)?;
            table.change(network, |counts| {
                counts.open += 1;
                counts.strangers += 1;
            });
            let number = table.next;
            table.next += 1;
            table.strangers.insert(number, (network, stranger.clone()));
            Ok(number)
        })?;
        let known = AtomicBool::new(false);
        Ok((Connection { addresses: self.clone(), network, number, known }, stranger))
    }

    /// Counts the connection of a client that has shown a valid token.
    fn accept_known(self: &Arc<Self>, address: IpAddr) -> Result<Connection, Refused> {
        let network = Some(network(address));
        let number = self.count(|table| {
            self.check_connections(table, network)?;
            self.make_room(table, u32::MAX)?;
            table.change(network, |counts| counts.open += 1);
            let number = table.next;
            table.next += 1;
            Ok(number)
        })?;
        Ok(Connection { addresses: self.clone(), network, number, known: AtomicBool::new(true) })
    }

    fn check_connections(&self, table: &Table, network: Option<IpAddr>) -> Result<(), Refused> {
        let full = table.has_all(network, self.settings.address_connections, |counts| counts.open);
        if full { Err(Refused::Address) } else { Ok(()) }
    }

    /// Ends the connection of a stranger if all places are taken, or if there are so many strangers.
    fn make_room(&self, table: &mut Table, strangers: u32) -> Result<(), Refused> {
        if table.all.open < self.most && table.all.strangers < strangers {
            return Ok(());
        }
        if table.all.open >= self.most.saturating_add(ENDING) || !table.end_oldest_stranger() {
            return Err(Refused::All);
        }
        self.ended.inc();
        Ok(())
    }

    /// Counts a WebSocket that is being opened from this address, until the guard is dropped. `None`: a trusted proxy did
    /// not say whose it is.
    ///
    /// # Errors
    /// [`Refused::AddressUpgrades`].
    pub fn upgrade(self: &Arc<Self>, address: Option<IpAddr>) -> Result<Upgrade, Refused> {
        let network = address.map(network);
        self.count(|table| {
            if table.has_all(network, self.settings.address_upgrades, |counts| counts.upgrades) {
                return Err(Refused::AddressUpgrades);
            }
            table.change(network, |counts| counts.upgrades += 1);
            Ok(())
        })?;
        Ok(Upgrade { addresses: self.clone(), network })
    }

    fn count<T>(&self, count: impl FnOnce(&mut Table) -> Result<T, Refused>) -> Result<T, Refused> {
        let mut table = self.table.lock();
        let counted = count(&mut table);
        self.show(&table);
        drop(table);
        counted.inspect_err(|refused| {
            self.refused.get_or_create(&vec![("reason", refused.label())]).inc();
        })
    }

    fn give_back(&self, give_back: impl FnOnce(&mut Table)) {
        let mut table = self.table.lock();
        give_back(&mut table);
        self.show(&table);
    }

    fn show(&self, table: &Table) {
        self.open.set(i64::from(table.all.open));
        self.strangers.set(i64::from(table.all.strangers));
    }
}

impl Table {
    /// Whether a network that the address is in has as many as it may have.
    fn has_all(&self, network: Option<IpAddr>, bound: u32, count: impl Fn(&Counts) -> u32) -> bool {
        network.into_iter().flat_map(bounded).any(|(network, times)| {
            let counts = self.networks.get(&network).copied().unwrap_or_default();
            count(&counts) >= bound.saturating_mul(times)
        })
    }

    /// Changes the counts of all, and those of the network. A network without connections is not kept.
    fn change(&mut self, network: Option<IpAddr>, change: impl Fn(&mut Counts)) {
        change(&mut self.all);
        for (network, _) in network.into_iter().flat_map(bounded) {
            let mut own = match self.networks.entry(network) {
                Entry::Occupied(own) => own,
                Entry::Vacant(none) => none.insert_entry(Counts::default()),
            };
            change(own.get_mut());
            if *own.get() == Counts::default() {
                own.remove();
            }
        }
    }

    /// The connection is no stranger's any more. It may have been told to end: then it was no longer counted as one.
    fn forget_stranger(&mut self, number: u64) {
        if let Some((network, _)) = self.strangers.remove(&number) {
            self.change(network, |counts| counts.strangers -= 1);
        }
    }

    /// Tells the connection of a stranger to end: the oldest one that waits for no answer, if it is among the oldest.
    fn end_oldest_stranger(&mut self) -> bool {
        let mut asked = self.strangers.iter().take(ASKED);
        let idle = asked.find(|(_, (_, stranger))| !stranger.waits.load(Ordering::Relaxed));
        let Some((&number, (_, stranger))) = idle.or_else(|| self.strangers.first_key_value()) else {
            return false;
        };
        stranger.end.notify_one();
        self.forget_stranger(number);
        true
    }
}

/// A stranger's connection, as seen by the task that serves it.
#[derive(Debug, Default)]
pub struct Stranger {
    end: Notify,
    waits: AtomicBool,
}

impl Stranger {
    /// Resolves when the connection has to end for a newer one.
    pub async fn ended(&self) {
        self.end.notified().await;
    }

    /// Whether its client waits for an answer.
    pub fn set_waits(&self, waits: bool) {
        self.waits.store(waits, Ordering::Relaxed);
    }
}

/// A connection that is counted.
#[derive(Debug)]
pub struct Connection {
    addresses: Arc<Addresses>,
    network: Option<IpAddr>,
    number: u64,
    /// Its client has shown a valid token.
    known: AtomicBool,
}

impl Connection {
    /// Its client has shown a valid token: it is no stranger's any more.
    pub fn show_token(&self) {
        if !self.known.swap(true, Ordering::AcqRel) {
            self.addresses.give_back(|table| table.forget_stranger(self.number));
        }
    }

    /// The connection as a WebSocket of this client. Behind a trusted proxy it is counted for the client from now on.
    /// `None`: that proxy did not say who the client is, so many clients share the connection's address.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn of_client(self: &Arc<Self>, client: Option<IpAddr>) -> Result<Arc<Self>, Refused> {
        self.show_token();
        match client {
            Some(client) if self.network.is_none() => Ok(Arc::new(self.addresses.accept_known(client)?)),
            _ => Ok(self.clone()),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.addresses.give_back(|table| {
            table.forget_stranger(self.number);
            table.change(self.network, |counts| counts.open -= 1);
        });
    }
}

/// A WebSocket that is being opened.
#[derive(Debug)]
pub struct Upgrade {
    addresses: Arc<Addresses>,
    network: Option<IpAddr>,
}

impl Drop for Upgrade {
    fn drop(&mut self) {
        self.addresses.give_back(|table| table.change(self.network, |counts| counts.upgrades -= 1));
    }
}

/// The network that counts as one client: an IPv6 client can use every address of its /64.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

/// The networks of an address that have bounds, and how many times the bounds they have.
fn bounded(address: IpAddr) -> impl Iterator<Item = (IpNet, u32)> {
    let wide = |v6: Ipv6Addr, prefix: u8| Ipv6Net::new_assert(v6, prefix).trunc().into();
    let (own, site) = match address {
        IpAddr::V4(_) => (IpNet::from(address), None),
        IpAddr::V6(v6) => (wide(v6, 64), Some((wide(v6, 48), PER_SITE))),
    };
    std::iter::once((own, 1)).chain(site)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const HERE: &str = "192.0.2.1";
    const THERE: &str = "2001:db8:1:2::1";

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn addresses(most: usize) -> Arc<Addresses> {
        let settings = AddressSettings {
            max_connections: None,
            address_connections: 4,
            address_strangers: 2,
            address_upgrades: 1,
        };
        Arc::new(Addresses::new(settings, most, &mut Registry::default()))
    }

    fn accept(addresses: &Arc<Addresses>, address: Option<IpAddr>) -> Result<Connection, Refused> {
        addresses.accept(address).map(|(connection, _)| connection)
    }

    fn is_told_to_end(stranger: &Stranger) -> bool {
        stranger.ended().now_or_never().is_some()
    }

    #[test]
    fn an_address_has_its_connections_and_fewer_without_a_token() {
        let addresses = addresses(100);
        let accept = |text: &str| accept(&addresses, Some(ip(text)));
        let mut here = vec![accept(HERE).unwrap(), accept(HERE).unwrap()];
        assert_eq!(accept(HERE).unwrap_err(), Refused::AddressStrangers);
        here.iter().for_each(Connection::show_token);
        here.iter().for_each(Connection::show_token);
        here.extend([accept(HERE).unwrap(), accept(HERE).unwrap()]);
        here.iter().for_each(Connection::show_token);
        assert_eq!(accept(HERE).unwrap_err(), Refused::Address);
        let there = [accept(THERE).unwrap(), accept("2001:db8:1:2:ffff::9").unwrap()];
        assert_eq!(accept(THERE).unwrap_err(), Refused::AddressStrangers, "its /64 is one");
        accept("2001:db8:1:3::1").unwrap();
        drop((here, there));
        let table = addresses.table.lock();
        assert!(table.networks.is_empty() && table.all == Counts::default(), "{table:?}");
    }

    #[test]
    fn the_networks_of_a_48_have_a_bound_together() {
        let addresses = addresses(1_000);
        let accept = |n: u16| accept(&addresses, Some(ip(&format!("2001:db8:1:{n:x}::1"))));
        let site: Vec<_> = (0..16).map(|n| accept(n).unwrap()).collect();
        assert_eq!(accept(16).unwrap_err(), Refused::AddressStrangers);
        addresses.accept(Some(ip("2001:db8:2::1"))).unwrap();
        drop(site);
        accept(16).unwrap();
    }

    #[test]
    fn a_new_connection_takes_the_place_of_the_oldest_idle_stranger() {
        let addresses = addresses(8);
        let accept = |n: u8| addresses.accept(Some(IpAddr::from([192, 0, 2, n]))).unwrap();
        let crowd: Vec<_> = (0..4).map(accept).collect();
        crowd[0].0.show_token();
        crowd[1].1.set_waits(true);
        let newer = accept(4);
        assert!(!crowd.iter().any(|(_, stranger)| is_told_to_end(stranger)), "half are strangers");
        let newest = accept(5);
        let told: Vec<bool> = crowd.iter().map(|(_, stranger)| is_told_to_end(stranger)).collect();
        assert_eq!(told, [false, false, true, false]);
        assert_eq!(addresses.table.lock().all.strangers, 4);
        drop((crowd, newer, newest));
        let table = addresses.table.lock();
        assert!(table.strangers.is_empty() && table.all == Counts::default(), "{table:?}");
    }

    #[test]
    fn whoever_has_a_token_gets_a_place_however_many_strangers_there_are() {
        let addresses = addresses(8);
        let accept = |n: u8| addresses.accept(Some(IpAddr::from([192, 0, 2, n])));
        // Each ends as soon as it is told to.
        let mut crowd: Vec<_> = (0..4).map(|n| accept(n).unwrap()).collect();
        let mut known = Vec::new();
        for n in 10..18 {
            let (connection, _) = accept(n).unwrap();
            crowd.retain(|(_, stranger)| !is_told_to_end(stranger));
            connection.show_token();
            known.push(connection);
        }
        assert!(crowd.is_empty());
        assert_eq!(accept(9).unwrap_err(), Refused::All, "and none of them is a stranger's");
    }

    #[test]
    fn connections_that_do_not_end_are_bounded() {
        let addresses = addresses(8);
        let accept = |n: u8| addresses.accept(Some(IpAddr::from([192, 0, 2, n])));
        let all: Vec<_> = (0..8 + 64).map(|n| accept(n).unwrap()).collect();
        assert_eq!(accept(100).unwrap_err(), Refused::All);
        drop(all);
        accept(100).unwrap();
    }

    #[test]
    fn strangers_do_not_keep_a_client_with_a_token_from_its_socket_behind_a_proxy() {
        let addresses = addresses(8);
        let proxied = Arc::new(accept(&addresses, None).unwrap());
        let _crowd: Vec<_> = (0..4).map(|n| addresses.accept(Some(IpAddr::from([192, 0, 2, n])))).collect();
        proxied.of_client(Some(ip(THERE))).unwrap();
    }

    #[test]
    fn a_proxy_has_no_bound_and_its_clients_have_theirs() {
        let addresses = addresses(100);
        let shared: Vec<Arc<Connection>> =
            (0..20).map(|_| Arc::new(accept(&addresses, None).unwrap())).collect();
        let sockets: Vec<_> = (0..4).map(|n: usize| shared[n].of_client(Some(ip(HERE))).unwrap()).collect();
        assert_eq!(shared[5].of_client(Some(ip(HERE))).unwrap_err(), Refused::Address);
        shared[6].of_client(Some(ip(THERE))).unwrap();
        drop(sockets);
        shared[5].of_client(Some(ip(HERE))).unwrap();
    }

    #[test]
    fn clients_whom_a_proxy_does_not_name_have_no_bound_together() {
        let addresses = addresses(100);
        let shared: Vec<Arc<Connection>> =
            (0..20).map(|_| Arc::new(accept(&addresses, None).unwrap())).collect();
        let _opening: Vec<_> = (0..20).map(|_| addresses.upgrade(None).unwrap()).collect();
        for connection in &shared {
            connection.of_client(None).unwrap();
        }
    }

    #[test]
    fn upgrades_in_progress_are_bounded() {
        let addresses = addresses(100);
        let first = addresses.upgrade(Some(ip(HERE))).unwrap();
        assert_eq!(addresses.upgrade(Some(ip(HERE))).unwrap_err(), Refused::AddressUpgrades);
        addresses.upgrade(Some(ip(THERE))).unwrap();
        drop(first);
        addresses.upgrade(Some(ip(HERE))).unwrap();
    }
}
