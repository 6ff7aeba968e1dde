//! A TCP proxy with faults on demand: it stalls silently, holds back what is sent, or drops all connections.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU8, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

/// Forwards to one address.
pub(crate) struct Proxy {
    address: String,
    faults: Arc<Faults>,
    cuts: watch::Sender<u64>,
}

/// The faults of all connections.
struct Faults {
    /// The ways on which what is read is dropped.
    cut: AtomicU8,
    /// The ways on which what is read is held back.
    held: watch::Sender<u8>,
    /// What was held back.
    holding: Mutex<Vec<u8>>,
}

/// Which way nothing comes through.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Cut {
    /// What the client sends.
    Reaching = 1,
    /// What the client is sent.
    Hearing = 2,
    Both = 3,
}

impl Proxy {
    /// In front of `target` (`host:port`).
    pub(crate) async fn start(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (cuts, _) = watch::channel(0);
        let faults = Faults { cut: AtomicU8::new(0), held: watch::Sender::new(0), holding: Mutex::default() };
        let faults = Arc::new(faults);
        tokio::spawn(accept(listener, target.to_owned(), faults.clone(), cuts.clone()));
        Self { address, faults, cuts }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// From now on what is read is dropped: the peers see an open connection that says nothing.
    pub(crate) fn stall(&self) {
        self.cut(Cut::Both);
    }

    /// The same, one way or both.
    pub(crate) fn cut(&self, cut: Cut) {
        self.faults.cut.store(cut as u8, Ordering::Release);
    }

    /// From now on what is read is held back.
    pub(crate) fn hold(&self, way: Cut) {
        self.faults.holding.lock().unwrap().clear();
        self.faults.held.send_replace(way as u8);
    }

    /// Whether something with these bytes in it is held back.
    pub(crate) fn holds(&self, text: &str) -> bool {
        self.faults.holding.lock().unwrap().windows(text.len()).any(|held| held == text.as_bytes())
    }

    /// Forwards what was held back.
    pub(crate) fn release(&self) {
        self.faults.held.send_replace(0);
    }

    /// Cuts all connections and forwards new ones again. What was swallowed stays lost.
    pub(crate) fn heal(&self) {
        self.faults.cut.store(0, Ordering::Release);
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}

async fn accept(listener: TcpListener, target: String, faults: Arc<Faults>, cuts: watch::Sender<u64>) {
    while let Ok((near, _)) = listener.accept().await {
        let (target, faults, cuts) = (target.clone(), faults.clone(), cuts.subscribe());
        tokio::spawn(async move {
            let Ok(far) = TcpStream::connect(target).await else { return };
            forward(near, far, faults, cuts).await;
        });
    }
}

async fn forward(near: TcpStream, far: TcpStream, faults: Arc<Faults>, mut cuts: watch::Receiver<u64>) {
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    let ended = cuts.changed();
    tokio::select! {
        () = pump(near_read, far_write, &faults, Cut::Reaching) => {}
        () = pump(far_read, near_write, &faults, Cut::Hearing) => {}
        _ = ended => {}
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, faults: &Faults, way: Cut) {
    let mut held = faults.held.subscribe();
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let mut passing = buffer[..length].to_vec();
        while *held.borrow_and_update() & way as u8 != 0 {
            faults.holding.lock().unwrap().extend_from_slice(&buffer[..length]);
            tokio::select! {
                read = from.read(&mut buffer) => match read {
                    Ok(length @ 1..) => passing.extend_from_slice(&buffer[..length]),
                    _ => return,
                },
                _ = held.changed() => {}
            }
        }
        let passes = faults.cut.load(Ordering::Acquire) & way as u8 == 0;
        if passes && to.write_all(&passing).await.is_err() {
            return;
        }
    }
}
