//! Verbs that talk to a cluster: runs, records and members, as its coordinator tells them.

mod give;
mod queue;
mod runs;
mod status;
mod watch;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use joust_proto::coordinator::v1::coordinator_service_client::CoordinatorServiceClient;
use joust_rpc::{Caller, ClientConfig, ClientTls, sized::coordinator_client};
use serde::{Deserialize, Serialize};

pub use queue::{pairs, queue};
pub use runs::run;
pub use status::status;

/// Name of the file that says where a cluster is.
pub const CLUSTER_FILE: &str = "cluster.json";
/// Name of a cluster's folder, where none is named.
pub const CLUSTER_FOLDER: &str = ".joust";

/// Where a cluster is, and how to get in.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Cluster {
    /// Version of this file.
    pub schema: u32,
    /// The coordinator, a URL.
    pub coordinator: String,
    /// The authority that signed its certificate.
    pub ca: PathBuf,
    /// The token to call with.
    pub token_file: PathBuf,
    /// Certificate and key to call with, where the services take nobody without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The process that keeps it up; 0 where that is not this machine's affair.
    #[serde(default)]
    pub pid: u32,
    /// The folder of this file.
    #[serde(skip)]
    pub folder: PathBuf,
}

impl Cluster {
    /// Reads a file.
    ///
    /// # Errors
    /// A file that is missing or is none of this.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let hint = || format!("no cluster is up there: {} cannot be read; start one with `joust up`", path.display());
        let text = std::fs::read(path).with_context(hint)?;
        let found: Self =
            serde_json::from_slice(&text).with_context(|| format!("{} names no cluster", path.display()))?;
        Ok(Self { folder: path.parent().unwrap_or(Path::new(".")).to_owned(), ..found })
    }

    /// Finds the cluster of a folder, of JOUST_CLUSTER, or of `.joust` here or above.
    ///
    /// # Errors
    /// None that is found; what to do then.
    pub fn find(named: Option<&Path>) -> anyhow::Result<Self> {
        if let Some(folder) = named {
            return Self::read(&folder.join(CLUSTER_FILE));
        }
        let here = std::env::current_dir()?;
        for folder in here.ancestors() {
            let path = folder.join(CLUSTER_FOLDER).join(CLUSTER_FILE);
            if path.is_file() {
                return Self::read(&path);
            }
        }
        bail!("no cluster is up here: start one with `joust up`, or name the folder of one in JOUST_CLUSTER");
    }

    /// Returns how its services are called.
    ///
    /// # Errors
    /// An address that is none.
    pub fn client(&self) -> anyhow::Result<ClientConfig> {
        let config = ClientConfig::new(self.coordinator.parse()?);
        let identity = self.identity.clone();
        let tls = config.address.is_tls().then(|| ClientTls { ca: self.ca.clone(), identity, server_name: None });
        Ok(ClientConfig { tls, token_file: Some(self.token_file.clone()), ..config })
    }
}

type Client = CoordinatorServiceClient<Caller>;

/// Sets up calls to the coordinator of a cluster.
fn connect(named: Option<&Path>) -> anyhow::Result<Client> {
    Ok(coordinator_client(Caller::new(Cluster::find(named)?.client()?)?))
}

/// Reads a refusal as an error for people.
fn said(status: tonic::Status) -> anyhow::Error {
    anyhow::anyhow!("{}", status.message())
}

/// Names one call, so that a repeat of it changes nothing.
fn key() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    format!("cli-{}-{now:x}", std::process::id())
}
