//! A TCP proxy with faults on demand: it stalls silently, or drops all connections.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
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
    stalled: Arc<AtomicBool>,
    cuts: watch::Sender<u64>,
}

impl Proxy {
    /// In front of `target` (`host:port`).
    pub(crate) async fn start(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let stalled = Arc::new(AtomicBool::new(false));
        let (cuts, _) = watch::channel(0);
        tokio::spawn(accept(listener, target.to_owned(), stalled.clone(), cuts.clone()));
        Self { address, stalled, cuts }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// From now on what is read is dropped: the peers see an open connection that says nothing.
    pub(crate) fn stall(&self) {
        self.stalled.store(true, Ordering::Release);
    }

    /// Cuts all connections and forwards new ones again. What was swallowed stays lost.
    pub(crate) fn heal(&self) {
        self.stalled.store(false, Ordering::Release);
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}

async fn accept(listener: TcpListener, target: String, stalled: Arc<AtomicBool>, cuts: watch::Sender<u64>) {
    while let Ok((near, _)) = listener.accept().await {
        let (target, stalled, cuts) = (target.clone(), stalled.clone(), cuts.subscribe());
        tokio::spawn(async move {
            let Ok(far) = TcpStream::connect(target).await else { return };
            forward(near, far, stalled, cuts).await;
        });
    }
}

async fn forward(near: TcpStream, far: TcpStream, stalled: Arc<AtomicBool>, mut cuts: watch::Receiver<u64>) {
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    let cut = cuts.changed();
    tokio::select! {
        () = pump(near_read, far_write, &stalled) => {}
        () = pump(far_read, near_write, &stalled) => {}
        _ = cut => {}
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, stalled: &AtomicBool) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if !stalled.load(Ordering::Acquire) && to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
