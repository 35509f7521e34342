//! Where a Redis is, and how to get in.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use redis::{
    Client, ConnectionAddr, IntoConnectionInfo, RedisError, TlsCertificates,
    io::tcp::{TcpSettings, socket2::TcpKeepalive},
};

use crate::{Error, Result};

/// Longest patience: scripts remember what they did for twice as long.
const PATIENCE: Duration = Duration::from_secs(60);
/// After how long a server that says nothing is asked whether it is there; it is gone after three times that.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// Where a Redis is, and how to get in.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisConfig {
    /// `redis://[user[:password]@]host[:port][/database]`, or `rediss://` for TLS.
    pub url: String,
    /// File that holds the password, for one that must not stand in the URL; read anew for each connection.
    pub password_file: Option<PathBuf>,
    /// PEM file of the authority that signed the server's certificate; the machine's own authorities without one.
    pub ca: Option<PathBuf>,
    /// Whether a server that evicts or does not persist is good enough, as in a test.
    pub allow_unsafe: bool,
    /// How long a call is made again while the server is away, before it fails; at most a minute, since what was done is remembered for two.
    pub patience: Duration,
}

impl RedisConfig {
    /// Names a server that is reached by a URL alone.
    pub fn new(url: impl Into<String>) -> Self {
        let patience = Duration::from_secs(30);
        Self { url: url.into(), password_file: None, ca: None, allow_unsafe: false, patience }
    }

    /// Returns the URL without what gets one in.
    pub fn server(&self) -> String {
        match (self.url.split_once("://"), self.url.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, place))) => format!("{scheme}://{place}"),
            _ => self.url.clone(),
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        if self.patience <= PATIENCE {
            return Ok(());
        }
        let value = format!("{} s", self.patience.as_secs_f64());
        Err(Error::Setting { name: "patience".into(), value, want: "at most 60 s" })
    }

    /// Builds what connects, with the password and certificates that the files hold now; nothing is sent yet.
    pub(super) fn client(&self) -> Result<Client> {
        let bad = |error: RedisError| Error::Server { server: self.server(), reason: error.to_string() };
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE).with_retries(2);
        let tcp = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive);
        let mut info = self.url.as_str().into_connection_info().map_err(bad)?.set_tcp_settings(tcp);
        if let Some(path) = &self.password_file {
            let password = String::from_utf8_lossy(&read(path)?).trim().to_owned();
            let own = info.redis_settings().clone().set_password(password);
            info = info.set_redis_settings(own);
        }
        if !matches!(info.addr(), ConnectionAddr::TcpTls { .. }) {
            return Client::open(info).map_err(bad);
        }
        let root_cert = self.ca.as_deref().map(read).transpose()?;
        Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert }).map_err(bad)
    }
}

impl fmt::Debug for RedisConfig {
    /// Shows no secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConfig").field("server", &self.server()).field("ca", &self.ca).finish_non_exhaustive()
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let failed = |error: std::io::Error| Error::Server {
        server: path.display().to_string(),
        reason: format!("the file cannot be read: {error}"),
    };
    fs::read(path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        let config = RedisConfig::new("rediss://joust:s3cret@redis.local:6380/2");
        assert_eq!(config.server(), "rediss://redis.local:6380/2");
        assert!(!format!("{config:?}").contains("s3cret"));
        assert_eq!(RedisConfig::new("redis://127.0.0.1:6379").server(), "redis://127.0.0.1:6379");
    }
}
