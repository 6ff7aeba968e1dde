//! The connections of clients, counted by the network that they come from.
//!
//! A connection begins as a stranger's and stops being one with its first valid token. Invariants: no network has more
//! connections, strangers' connections or upgrades in progress than its bounds; strangers' connections leave half of all
//! places free. So whoever has no account can't keep those out that have one. What is counted is given back when its
//! guard is dropped.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;
use prometheus_client::{metrics::gauge::Gauge, registry::Registry};

use super::metrics::{self, Counters};

#[derive(Debug, Clone, clap::Args)]
pub struct AddressSettings {
    /// Connections of all clients, WebSockets included; by default and at most as many as the descriptors of the process
    /// allow.
    #[arg(long, env = "MT_MAX_CONNECTIONS")]
    pub max_connections: Option<usize>,
    /// Connections of one address, WebSockets included; of IPv6 a /64 counts as one. Trusted proxies have no bound: behind
    /// them the WebSockets of the address that they name are counted.
    #[arg(long, env = "MT_ADDRESS_CONNECTIONS", default_value_t = 4_096)]
    pub address_connections: u32,
    /// Those of them that have not shown a valid token yet.
    #[arg(long, env = "MT_ADDRESS_STRANGERS", default_value_t = 512)]
    pub address_strangers: u32,
    /// WebSockets of one address that are being opened.
    #[arg(long, env = "MT_ADDRESS_UPGRADES", default_value_t = 512)]
    pub address_upgrades: u32,
}

/// Why a connection is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The address has its connections.
    Address,
    /// The address has its connections without a valid token.
    AddressStrangers,
    /// The address opens enough WebSockets at the moment.
    AddressUpgrades,
    /// Strangers have their half of all connections.
    Strangers,
    /// All connections are taken.
    All,
}

impl Refused {
    const fn label(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::AddressStrangers => "address_strangers",
            Self::AddressUpgrades => "address_upgrades",
            Self::Strangers => "strangers",
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
    networks: HashMap<IpAddr, Counts>,
    all: Counts,
}

#[derive(Debug)]
pub struct Addresses {
    table: Mutex<Table>,
    settings: AddressSettings,
    most: u32,
    open: Gauge,
    strangers: Gauge,
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
    pub fn accept(self: &Arc<Self>, address: Option<IpAddr>) -> Result<Connection, Refused> {
        let network = address.map(network);
        self.count(|table| {
            let own = network.and_then(|network| table.networks.get(&network)).copied().unwrap_or_default();
            if table.all.open >= self.most {
                return Err(Refused::All);
            }
            if network.is_some() && own.open >= self.settings.address_connections {
                return Err(Refused::Address);
            }
            if network.is_some() && own.strangers >= self.settings.address_strangers {
                return Err(Refused::AddressStrangers);
            }
            if table.all.strangers >= self.most / 2 {
                return Err(Refused::Strangers);
            }
            table.change(network, |counts| {
                counts.open += 1;
                counts.strangers += 1;
            });
            Ok(())
        })?;
        Ok(Connection { addresses: self.clone(), network, known: AtomicBool::new(false) })
    }

    /// Counts a WebSocket that is being opened from this address, until the guard is dropped.
    ///
    /// # Errors
    /// [`Refused::AddressUpgrades`].
    pub fn upgrade(self: &Arc<Self>, address: IpAddr) -> Result<Upgrade, Refused> {
        let network = network(address);
        self.count(|table| {
            let own = table.networks.get(&network).copied().unwrap_or_default();
            if own.upgrades >= self.settings.address_upgrades {
                return Err(Refused::AddressUpgrades);
            }
            table.change(Some(network), |counts| counts.upgrades += 1);
            Ok(())
        })?;
        Ok(Upgrade { addresses: self.clone(), network })
    }

    fn count(&self, count: impl FnOnce(&mut Table) -> Result<(), Refused>) -> Result<(), Refused> {
        let mut table = self.table.lock();
        let counted = count(&mut table);
        self.show(&table);
        drop(table);
        counted.inspect_err(|refused| {
            self.refused.get_or_create(&vec![("reason", refused.label())]).inc();
        })
    }

    fn give_back(&self, network: Option<IpAddr>, change: impl Fn(&mut Counts)) {
        let mut table = self.table.lock();
        table.change(network, change);
        self.show(&table);
    }

    fn show(&self, table: &Table) {
        self.open.set(i64::from(table.all.open));
        self.strangers.set(i64::from(table.all.strangers));
    }
}

impl Table {
    /// Changes the counts of all, and those of the network. A network without connections is not kept.
    fn change(&mut self, network: Option<IpAddr>, change: impl Fn(&mut Counts)) {
        change(&mut self.all);
        let Some(network) = network else { return };
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

/// A connection that is counted.
#[derive(Debug)]
pub struct Connection {
    addresses: Arc<Addresses>,
    network: Option<IpAddr>,
    /// Its client has shown a valid token.
    known: AtomicBool,
}

impl Connection {
    /// Its client has shown a valid token: it is no stranger's any more.
    pub fn show_token(&self) {
        if !self.known.swap(true, Ordering::AcqRel) {
            self.addresses.give_back(self.network, |counts| counts.strangers -= 1);
        }
    }

    /// The connection as a WebSocket of this client. Behind a trusted proxy it is counted for the client from now on.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn of_client(self: &Arc<Self>, client: IpAddr) -> Result<Arc<Self>, Refused> {
        self.show_token();
        if self.network.is_some() {
            return Ok(self.clone());
        }
        let connection = self.addresses.accept(Some(client))?;
        connection.show_token();
        Ok(Arc::new(connection))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let stranger = u32::from(!*self.known.get_mut());
        self.addresses.give_back(self.network, |counts| {
            counts.open -= 1;
            counts.strangers -= stranger;
        });
    }
}

/// A WebSocket that is being opened.
#[derive(Debug)]
pub struct Upgrade {
    addresses: Arc<Addresses>,
    network: IpAddr,
}

impl Drop for Upgrade {
    fn drop(&mut self) {
        self.addresses.give_back(Some(self.network), |counts| counts.upgrades -= 1);
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

#[cfg(test)]
mod tests {
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

    #[test]
    fn an_address_has_its_connections_and_fewer_without_a_token() {
        let addresses = addresses(100);
        let accept = |text: &str| addresses.accept(Some(ip(text)));
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
    fn strangers_leave_half_of_all_places_to_those_with_a_token() {
        let addresses = addresses(8);
        let accept = |n: u8| addresses.accept(Some(IpAddr::from([192, 0, 2, n])));
        let strangers: Vec<Connection> = (0..4).map(|n| accept(n).unwrap()).collect();
        assert_eq!(accept(9).unwrap_err(), Refused::Strangers);
        strangers[0].show_token();
        let mut known = Vec::new();
        for n in 10..14 {
            let connection = accept(n).unwrap();
            connection.show_token();
            known.push(connection);
        }
        assert_eq!(accept(9).unwrap_err(), Refused::All);
    }

    #[test]
    fn a_proxy_has_no_bound_and_its_clients_have_theirs() {
        let addresses = addresses(100);
        let shared: Vec<Arc<Connection>> =
            (0..20).map(|_| Arc::new(addresses.accept(None).unwrap())).collect();
        let sockets: Vec<_> = (0..4).map(|n: usize| shared[n].of_client(ip(HERE)).unwrap()).collect();
        assert_eq!(shared[5].of_client(ip(HERE)).unwrap_err(), Refused::Address);
        shared[6].of_client(ip(THERE)).unwrap();
        drop(sockets);
        shared[5].of_client(ip(HERE)).unwrap();
    }

    #[test]
    fn upgrades_in_progress_are_bounded() {
        let addresses = addresses(100);
        let first = addresses.upgrade(ip(HERE)).unwrap();
        assert_eq!(addresses.upgrade(ip(HERE)).unwrap_err(), Refused::AddressUpgrades);
        addresses.upgrade(ip(THERE)).unwrap();
        drop(first);
        addresses.upgrade(ip(HERE)).unwrap();
    }
}
