//! A TCP proxy that can stand still, as a network does.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

pub(crate) struct Proxy {
    port: u16,
    stalled: watch::Sender<bool>,
    open: Arc<AtomicUsize>,
}

impl Proxy {
    pub(crate) async fn start(to: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (stalled, watched) = watch::channel(false);
        let open = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&open);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(&to).await else { continue };
                let (watched, count) = (watched.clone(), Arc::clone(&count));
                tokio::spawn(async move {
                    count.fetch_add(1, SeqCst);
                    forward(client, server, watched).await;
                    count.fetch_sub(1, SeqCst);
                });
            }
        });
        Self { port, stalled, open }
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Whether bytes move.
    pub(crate) fn stall(&self, stalled: bool) {
        self.stalled.send_replace(stalled);
    }

    pub(crate) fn open_connections(&self) -> usize {
        self.open.load(SeqCst)
    }
}

async fn forward(mut client: TcpStream, mut server: TcpStream, mut stalled: watch::Receiver<bool>) {
    let (mut up, mut down) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    loop {
        // A network that stands still takes nothing; the sender's kernel keeps it.
        if stalled.wait_for(|stalled| !stalled).await.is_err() {
            return;
        }
        // What the sender's kernel has discarded by a reset, it can't deliver. Here it lies in our own buffer.
        if client.take_error().ok().flatten().is_some() {
            return;
        }
        let (read, upwards) = tokio::select! {
            () = stands_still(&mut stalled) => continue,
            read = client.read(&mut up) => (read, true),
            read = server.read(&mut down) => (read, false),
        };
        let (bytes, to) = if upwards { (&up, &mut server) } else { (&down, &mut client) };
        if !move_bytes(read, bytes, to).await {
            return;
        }
    }
}

async fn stands_still(stalled: &mut watch::Receiver<bool>) {
    drop(stalled.wait_for(|stalled| *stalled).await);
}

async fn move_bytes(read: std::io::Result<usize>, bytes: &[u8], to: &mut TcpStream) -> bool {
    match read {
        Ok(count) if count > 0 => to.write_all(&bytes[..count]).await.is_ok(),
        _ => false,
    }
}
