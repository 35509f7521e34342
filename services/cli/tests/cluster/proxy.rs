//! A TCP proxy that can be a partition: connections stay, and nothing passes until it is healed.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

/// Forwards connections from a port of its own to a server.
pub struct Proxy {
    pub port: u16,
    open: watch::Sender<bool>,
}

impl Proxy {
    /// Starts one in front of a local port; it ends with its runtime.
    pub async fn start(server: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (sender, open) = watch::channel(true);
        tokio::spawn(accept(listener, SocketAddr::from(([127, 0, 0, 1], server)), open));
        Self { port, open: sender }
    }

    /// Lets nothing through from now on.
    pub fn cut(&self) {
        self.open.send_replace(false);
    }

    /// Lets everything through again, what waited first.
    pub fn heal(&self) {
        self.open.send_replace(true);
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, open: watch::Receiver<bool>) {
    while let Ok((client, _)) = listener.accept().await {
        let mut open = open.clone();
        tokio::spawn(async move {
            let _ = open.wait_for(|open| *open).await;
            let Ok(server) = TcpStream::connect(server).await else { return };
            let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
            tokio::spawn(pass(from_client, to_server, open.clone()));
            tokio::spawn(pass(from_server, to_client, open));
        });
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut open: watch::Receiver<bool>) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut bytes).await {
        if open.wait_for(|open| *open).await.is_err() || to.write_all(&bytes[..length]).await.is_err() {
            return;
        }
    }
}
