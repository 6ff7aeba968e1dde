//! A TCP proxy with faults on demand: it stalls silently, or drops all connections.

use std::sync::{
    Arc,
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
    cut: Arc<AtomicU8>,
    cuts: watch::Sender<u64>,
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
        let cut = Arc::new(AtomicU8::new(0));
        let (cuts, _) = watch::channel(0);
        tokio::spawn(accept(listener, target.to_owned(), cut.clone(), cuts.clone()));
        Self { address, cut, cuts }
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
        self.cut.store(cut as u8, Ordering::Release);
    }

    /// Cuts all connections and forwards new ones again. What was swallowed stays lost.
    pub(crate) fn heal(&self) {
        self.cut.store(0, Ordering::Release);
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}

async fn accept(listener: TcpListener, target: String, cut: Arc<AtomicU8>, cuts: watch::Sender<u64>) {
    while let Ok((near, _)) = listener.accept().await {
        let (target, cut, cuts) = (target.clone(), cut.clone(), cuts.subscribe());
        tokio::spawn(async move {
            let Ok(far) = TcpStream::connect(target).await else { return };
            forward(near, far, cut, cuts).await;
        });
    }
}

async fn forward(near: TcpStream, far: TcpStream, cut: Arc<AtomicU8>, mut cuts: watch::Receiver<u64>) {
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    let ended = cuts.changed();
    tokio::select! {
        () = pump(near_read, far_write, &cut, Cut::Reaching) => {}
        () = pump(far_read, near_write, &cut, Cut::Hearing) => {}
        _ = ended => {}
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, cut: &AtomicU8, way: Cut) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let passes = cut.load(Ordering::Acquire) & way as u8 == 0;
        if passes && to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
