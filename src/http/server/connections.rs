//! Open connections, by the network that they come from. Where there are too many, the one that
//! has waited longest for its client is closed in favor of a new one: a client that does something
//! keeps its place, and one that only holds connections open loses them.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use tokio_util::sync::CancellationToken;

use crate::http::api::peer::network_of;

/// In place of a time: the server is at work, or the client reads as fast as it writes.
const BUSY: u64 = u64::MAX;

/// A connection, as far as its place depends on it.
pub(crate) struct Connection {
    start: Instant,
    /// Milliseconds after `start` since when it waits for its client, or `BUSY`.
    waiting_since: AtomicU64,
    /// True from the headers of a request until its response has ended.
    in_request: AtomicBool,
    /// Cancelled to close it.
    pub closed: CancellationToken,
}

impl Connection {
    fn new(start: Instant) -> Self {
        Self {
            start,
            waiting_since: AtomicU64::new(start.elapsed().as_millis() as u64),
            in_request: AtomicBool::new(false),
            closed: CancellationToken::new(),
        }
    }

    /// A request's headers have arrived.
    pub(crate) fn begins(&self) {
        self.in_request.store(true, Ordering::Relaxed);
        self.waiting_since.store(BUSY, Ordering::Relaxed);
    }

    /// A response has ended.
    pub(crate) fn ends(&self) {
        self.in_request.store(false, Ordering::Relaxed);
        self.waits_anew();
    }

    /// It waits for its client to send or to read.
    pub(crate) fn waits(&self) {
        if self.waiting_since.load(Ordering::Relaxed) == BUSY {
            self.waits_anew();
        }
    }

    /// Its client has sent or read something.
    pub(crate) fn moves(&self) {
        if self.in_request.load(Ordering::Relaxed) {
            self.waiting_since.store(BUSY, Ordering::Relaxed);
        } else {
            self.waits_anew();
        }
    }

    fn waits_anew(&self) {
        let now = self.start.elapsed().as_millis() as u64;
        self.waiting_since.store(now, Ordering::Relaxed);
    }
}

/// All connections of a listener.
pub(crate) struct Connections {
    start: Instant,
    limit: usize,
    limit_per_address: usize,
    /// Addresses of proxies, which have only the limit of all.
    trusted_proxies: Vec<IpAddr>,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    count: usize,
    by_network: HashMap<IpAddr, Vec<Arc<Connection>>>,
}

/// The place of a connection, until it is dropped.
pub(crate) struct Place {
    all: Arc<Connections>,
    network: IpAddr,
    pub connection: Arc<Connection>,
}

impl Connections {
    pub(crate) fn new(
        limit: usize,
        limit_per_address: usize,
        trusted_proxies: Vec<IpAddr>,
    ) -> Self {
        Self {
            start: Instant::now(),
            limit: limit.max(1),
            limit_per_address: limit_per_address.max(1),
            trusted_proxies,
            open: Mutex::default(),
        }
    }

    /// A place for a connection, if need be that of another one. `None`: all are busy.
    pub(crate) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let network = network_of(address);
        let mut open = self.lock();
        let own = open.by_network.get(&network).map_or(0, Vec::len);
        if own >= self.limit_per_address && !self.trusted_proxies.contains(&address) {
            open.evict(network)?;
        } else if open.count >= self.limit {
            let most = open.by_network.iter().max_by_key(|(_, all)| all.len());
            let most = most.map(|(network, _)| *network)?;
            open.evict(most)?;
        }
        let connection = Arc::new(Connection::new(self.start));
        let of_network = open.by_network.entry(network).or_default();
        of_network.push(Arc::clone(&connection));
        open.count += 1;
        drop(open);
        Some(Place {
            all: Arc::clone(self),
            network,
            connection,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        // A panic cannot leave counts half changed.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// Closes the connection of this network that has waited longest. `None`: none waits.
    fn evict(&mut self, network: IpAddr) -> Option<()> {
        let of_network = self.by_network.get(&network)?.iter();
        let waiting = of_network.map(|one| (one.waiting_since.load(Ordering::Relaxed), one));
        let (since, longest) = waiting.min_by_key(|(since, _)| *since)?;
        if since == BUSY {
            return None;
        }
        let longest = Arc::clone(longest);
        longest.closed.cancel();
        self.remove(network, &longest);
        Some(())
    }

    fn remove(&mut self, network: IpAddr, connection: &Arc<Connection>) {
        let Some(of_network) = self.by_network.get_mut(&network) else {
            return;
        };
        let at = of_network
            .iter()
            .position(|one| Arc::ptr_eq(one, connection));
        if let Some(at) = at {
            of_network.swap_remove(at);
            self.count -= 1;
        }
        if of_network.is_empty() {
            self.by_network.remove(&network);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.all.lock().remove(self.network, &self.connection);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn table(limit: usize, per_address: usize) -> Arc<Connections> {
        Arc::new(Connections::new(
            limit,
            per_address,
            vec![address("10.0.0.9")],
        ))
    }

    fn since(place: &Place, at: u64) {
        place.connection.waiting_since.store(at, Ordering::Relaxed);
    }

    #[test]
    fn full_address_loses_its_longest_waiting_connection() {
        let table = table(10, 2);
        let first = table.admit(address("10.0.0.1")).unwrap();
        let second = table.admit(address("10.0.0.1")).unwrap();
        since(&first, 2);
        since(&second, 1);
        let _third = table.admit(address("10.0.0.1")).unwrap();
        assert!(second.connection.closed.is_cancelled());
        assert!(!first.connection.closed.is_cancelled());
        drop(second);
        assert_eq!(table.lock().count, 2);
    }

    #[test]
    fn busy_connections_keep_their_places() {
        let table = table(10, 1);
        let first = table.admit(address("10.0.0.1")).unwrap();
        first.connection.begins();
        assert!(table.admit(address("10.0.0.1")).is_none());
        let _other = table.admit(address("10.0.0.2")).unwrap();
        first.connection.waits();
        assert!(table.admit(address("10.0.0.1")).is_some());
        assert!(first.connection.closed.is_cancelled());
    }

    #[test]
    fn full_service_takes_from_the_address_with_most() {
        let table = table(3, 2);
        let greedy = [1, 2].map(|at| {
            let place = table.admit(address("10.0.0.1")).unwrap();
            since(&place, at);
            place
        });
        let modest = table.admit(address("10.0.0.2")).unwrap();
        since(&modest, 0);
        let _new = table.admit(address("10.0.0.3")).unwrap();
        assert!(greedy[0].connection.closed.is_cancelled());
        assert!(!modest.connection.closed.is_cancelled());
    }

    #[test]
    fn proxies_have_only_the_limit_of_all() {
        let table = table(3, 1);
        let places: Vec<Place> = (0..3)
            .map(|_| table.admit(address("10.0.0.9")).unwrap())
            .collect();
        assert!(
            places
                .iter()
                .all(|place| !place.connection.closed.is_cancelled())
        );
    }
}
