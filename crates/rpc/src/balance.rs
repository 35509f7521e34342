//! One channel over all addresses of a host name, looked up again and again: a headless service gives one address a pod.

use std::{collections::BTreeSet, fmt, io, net::SocketAddr, pin::Pin, str::FromStr, sync::Arc, time::Duration};

use tokio::sync::mpsc::Sender;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint, Uri, channel::Change};
use tracing::Instrument;

use crate::{Error, Result, error::transport};

/// Changes of addresses that may wait to be taken over.
const CHANGES: usize = 64;
/// Longest time until a connection is there.
const CONNECT: Duration = Duration::from_secs(5);
/// How often an idle connection is asked whether it lives; servers of other makers refuse shorter times than 20 s.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));
/// Window of one stream in bytes.
const STREAM_WINDOW: u32 = 1 << 20;
/// Window of one connection in bytes.
const CONNECTION_WINDOW: u32 = 4 << 20;

/// Where a service is: scheme, host and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    tls: bool,
    host: String,
    port: u16,
}

impl Address {
    /// Returns whether the address asks for TLS.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// Returns the host, a name or an address.
    pub fn host(&self) -> &str {
        &self.host
    }

    fn scheme(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }
}

impl FromStr for Address {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let invalid = || Error::Address(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| invalid())?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(invalid()),
        };
        let bare = uri.path_and_query().is_none_or(|path| path.as_str() == "/");
        let authority = uri.authority().filter(|authority| bare && !authority.as_str().contains('@'));
        let (host, port) = authority.and_then(|a| Some((a.host(), a.port_u16()?))).ok_or_else(invalid)?;
        Ok(Self { tls, host: host.trim_matches(['[', ']']).to_owned(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let brackets = if self.host.contains(':') { ["[", "]"] } else { ["", ""] };
        write!(f, "{}://{}{}{}:{}", self.scheme(), brackets[0], self.host, brackets[1], self.port)
    }
}

/// Looks a host and port up.
pub type Lookup =
    Arc<dyn Fn(String, u16) -> Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>> + Send + Sync>;

/// Returns the system's look-up.
pub(crate) fn system_lookup() -> Lookup {
    Arc::new(|host, port| {
        Box::pin(async move { Ok(tokio::net::lookup_host((host.as_str(), port)).await?.collect::<Vec<_>>()) })
    })
}

/// Opens a channel that spreads calls over all addresses of the host; it looks them up `every` so often until the last clone is gone.
///
/// # Errors
/// [`Error::Transport`] for TLS settings that do not fit.
pub(crate) fn channel(
    address: &Address,
    tls: Option<ClientTlsConfig>,
    lookup: Lookup,
    every: Duration,
) -> Result<Channel> {
    // Tried once here, so that settings that cannot work are an error of the caller and not of a task.
    endpoint(address, tls.as_ref(), SocketAddr::from(([127, 0, 0, 1], address.port)))?;
    let (channel, changes) = Channel::balance_channel(CHANGES);
    let address = address.clone();
    tokio::spawn(follow(address, tls, lookup, every, changes).in_current_span());
    Ok(channel)
}

async fn follow(
    address: Address,
    tls: Option<ClientTlsConfig>,
    lookup: Lookup,
    every: Duration,
    changes: Sender<Change<SocketAddr, Endpoint>>,
) {
    let mut known = BTreeSet::new();
    loop {
        match lookup(address.host.clone(), address.port).await {
            // An empty answer is a name server's hiccup more often than the end of all pods: the addresses of before stay.
            Ok(found) if found.is_empty() => tracing::warn!(%address, "no address found"),
            Ok(found) => {
                let found: BTreeSet<SocketAddr> = found.into_iter().collect();
                for gone in known.difference(&found) {
                    if changes.send(Change::Remove(*gone)).await.is_err() {
                        return;
                    }
                }
                for new in found.difference(&known) {
                    let Ok(endpoint) = endpoint(&address, tls.as_ref(), *new) else { continue };
                    if changes.send(Change::Insert(*new, endpoint)).await.is_err() {
                        return;
                    }
                }
                known = found;
            }
            Err(error) => tracing::warn!(%address, %error, "address cannot be looked up"),
        }
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = changes.closed() => return,
        }
    }
}

fn endpoint(address: &Address, tls: Option<&ClientTlsConfig>, at: SocketAddr) -> Result<Endpoint> {
    let uri = format!("{}://{at}", address.scheme());
    let origin: Uri = address.to_string().parse().map_err(|_| Error::Address(address.to_string()))?;
    let endpoint = Endpoint::from_shared(uri)
        .map_err(transport("reading the address"))?
        .origin(origin)
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE.0)
        .keep_alive_timeout(KEEPALIVE.1)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    match tls {
        Some(tls) => endpoint.tls_config(tls.clone()).map_err(transport("setting up TLS")),
        None => Ok(endpoint),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_scheme_host_and_port() {
        for good in ["http://127.0.0.1:80", "https://joust-judge.default.svc:7443", "http://[::1]:5"] {
            assert_eq!(good.parse::<Address>().expect(good).to_string(), good);
        }
        for bad in ["", "host:1", "ftp://a:1", "http://a", "http://a:1/x", "http://user:secret@a:1"] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }
}
