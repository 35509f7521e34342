//! TLS from files: the server's certificate, the authority of clients, and what a client shows.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use tonic::transport::{Certificate, ClientTlsConfig, Identity, ServerTlsConfig};

use crate::{Result, error::io};

/// A connection that does not finish its handshake in this time is closed.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How a server proves who it is, and whom it asks for proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerTls {
    /// Its certificate chain, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// Authority that signs client certificates, PEM; without it nobody is asked for one, and calls of workers are refused.
    pub client_ca: Option<PathBuf>,
    /// Whether a connection without a client certificate is refused; otherwise only calls of workers need one.
    pub client_required: bool,
}

/// How a client knows the server, and proves who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientTls {
    /// Authority that signs server certificates, PEM.
    pub ca: PathBuf,
    /// Certificate chain and key, PEM.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Name that the server's certificate holds for; `None`: the host of the address.
    pub server_name: Option<String>,
}

impl ServerTls {
    pub(crate) fn load(&self) -> Result<ServerTlsConfig> {
        let mut config = ServerTlsConfig::new()
            .identity(Identity::from_pem(read(&self.certificate)?, read(&self.key)?))
            .timeout(HANDSHAKE);
        if let Some(ca) = &self.client_ca {
            config =
                config.client_ca_root(Certificate::from_pem(read(ca)?)).client_auth_optional(!self.client_required);
        }
        Ok(config)
    }
}

impl ClientTls {
    pub(crate) fn load(&self, host: &str) -> Result<ClientTlsConfig> {
        let name = self.server_name.as_deref().unwrap_or(host);
        let mut config = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(read(&self.ca)?))
            .domain_name(name)
            .timeout(HANDSHAKE);
        if let Some((certificate, key)) = &self.identity {
            config = config.identity(Identity::from_pem(read(certificate)?, read(key)?));
        }
        Ok(config)
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(io("read", path))
}
