//! The deployment file `joust.toml`: the machines that a run meets, never what the run computes.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ConfigFile, Error, resolve::private::Sealed, run::Problems};

/// Addresses, TLS, tokens, devices, folders and threads; one process on one machine needs none of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Deployment {
    /// Version of the file's keys; 1 in this build.
    #[schemars(range(min = 1, max = 1))]
    pub schema: u32,
    /// Where records wait.
    #[serde(default)]
    pub queue: QueueBackend,
    /// Where services listen.
    #[serde(default)]
    pub listen: Listen,
    /// Where services are found.
    #[serde(default)]
    pub connect: Connect,
    /// Encryption and identity of the connections.
    #[serde(default)]
    pub tls: Tls,
    /// Who may call.
    #[serde(default)]
    pub auth: Auth,
    /// How many calls a service takes.
    #[serde(default)]
    pub limits: CallLimits,
    /// What computes.
    #[serde(default)]
    pub device: Device,
    /// Threads of each part.
    #[serde(default)]
    pub threads: Threads,
    /// Folders of the machine.
    #[serde(default)]
    pub folders: Folders,
    /// Logs, traces and metrics.
    #[serde(default)]
    pub telemetry: Telemetry,
}

/// Where records wait.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct QueueBackend {
    /// Which backend.
    pub kind: QueueKind,
    /// Address of `redis`, for example `redis://queue:6379`; a password belongs into `auth.redis_password_file`.
    pub url: Option<String>,
    /// PEM file of the authority that signed the certificate of `redis`; the machine's own authorities without one.
    pub ca: Option<PathBuf>,
    /// Whether a Redis that evicts or does not persist is good enough.
    pub allow_unsafe: bool,
}

/// The queue's backends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum QueueKind {
    /// A file in the run's folder; one process.
    #[default]
    Embedded,
    /// Nothing outlives the process; for tests.
    Memory,
    /// A Redis server shared by all services.
    Redis,
}

/// Addresses to listen on, `host:port`; port 0 takes a free one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Listen {
    /// gRPC of the coordinator.
    pub coordinator: Option<String>,
    /// gRPC of a rollout worker.
    pub rollout: Option<String>,
    /// gRPC of a judge worker.
    pub judge: Option<String>,
    /// gRPC of the learner.
    pub learner: Option<String>,
    /// HTTP with metrics and health.
    pub metrics: Option<String>,
    /// Host, or `host:port`, under which others reach this process, where it is not the one that it listens on.
    pub advertise: Option<String>,
}

/// Addresses to call, as URLs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Connect {
    /// The coordinator; it tells workers where the learner of a run is.
    pub coordinator: Option<String>,
}

/// Files of keys and certificates in PEM; none of them means plain connections.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// Certificate that this process shows to its callers; needs `key`.
    pub cert: Option<PathBuf>,
    /// Private key of `cert`.
    pub key: Option<PathBuf>,
    /// Certificate that this process shows to those that it calls; needs `client_key`.
    pub client_cert: Option<PathBuf>,
    /// Private key of `client_cert`.
    pub client_key: Option<PathBuf>,
    /// Certificates that signed the others'.
    pub ca: Option<PathBuf>,
    /// Whether callers must show a certificate signed by `ca`.
    pub require_client: bool,
}

/// Files that hold secrets; a secret itself never stands in this file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Auth {
    /// Bearer tokens that may call this process, one a line.
    pub tokens_file: Option<PathBuf>,
    /// Bearer token that this process calls with.
    pub token_file: Option<PathBuf>,
    /// Password of the Redis server.
    pub redis_password_file: Option<PathBuf>,
}

/// How many calls a service takes; one too many is refused, and told when to come again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CallLimits {
    /// Calls a second of each token; 0 for any number.
    #[schemars(range(min = 0.0, max = 1e6))]
    pub calls_per_s: f64,
    /// Calls that a token may make at once before its rate counts.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub burst: u32,
    /// Calls at once of all tokens together, streams included.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub concurrency: u32,
}

impl Default for CallLimits {
    fn default() -> Self {
        Self { calls_per_s: 1000.0, burst: 2000, concurrency: 1024 }
    }
}

/// What computes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Device {
    /// Kind of device.
    pub kind: DeviceKind,
    /// Which devices, by index; empty takes all.
    pub indices: Vec<u32>,
}

/// Kinds of device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeviceKind {
    /// A GPU where there is one, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// NVIDIA GPUs.
    Cuda,
}

/// Threads of each part; 0 takes as many as there are cores.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Threads {
    /// Tensor work of sampling and training; in a learner a run's `learner.threads` wins.
    #[schemars(range(max = 1024))]
    pub tensor: u32,
    /// Asynchronous work.
    #[schemars(range(max = 1024))]
    pub runtime: u32,
}

/// Folders of the machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Folders {
    /// Models fetched from elsewhere.
    pub cache: Option<PathBuf>,
    /// Folders below which all paths of submitted runs must lie; the first is what relative ones start from.
    pub roots: Vec<PathBuf>,
    /// Output of submitted runs, a folder each; learners of one deployment share it.
    pub runs: Option<PathBuf>,
    /// Whether a rollout worker that sees `runs` takes published weights from there; else it fetches them over gRPC.
    pub share_weights: bool,
    /// What the coordinator remembers of runs.
    pub state: Option<PathBuf>,
}

impl Default for Folders {
    fn default() -> Self {
        Self { cache: None, roots: Vec::new(), runs: None, share_weights: true, state: None }
    }
}

/// Logs, traces and metrics.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Telemetry {
    /// Form of log lines.
    pub log_format: LogFormat,
    /// OTLP endpoint (gRPC) for traces, metrics and logs, for example `http://collector:4317`; none sends none.
    pub otlp_endpoint: Option<String>,
    /// Whether texts of prompts and completions may stand in traces. Off, because prompts can be private.
    pub capture_content: bool,
}

/// Form of log lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl Default for Deployment {
    fn default() -> Self {
        Self {
            schema: 1,
            queue: QueueBackend::default(),
            listen: Listen::default(),
            connect: Connect::default(),
            tls: Tls::default(),
            auth: Auth::default(),
            limits: CallLimits::default(),
            device: Device::default(),
            threads: Threads::default(),
            folders: Folders::default(),
            telemetry: Telemetry::default(),
        }
    }
}

impl Sealed for Deployment {}

impl ConfigFile for Deployment {
    const KIND: &'static str = "deployment file";
    const ENV_PREFIX: &'static str = "JOUST_DEPLOYMENT__";
    const OUTSIDE_HASH: &'static [&'static str] = &[];

    fn inputs(&mut self) -> Vec<&mut PathBuf> {
        let tls = &mut self.tls;
        let tls = [&mut tls.cert, &mut tls.key, &mut tls.client_cert, &mut tls.client_key, &mut tls.ca];
        let tls = tls.into_iter().map(Option::as_mut).chain([self.queue.ca.as_mut()]);
        let auth =
            [self.auth.tokens_file.as_mut(), self.auth.token_file.as_mut(), self.auth.redis_password_file.as_mut()];
        let folders = [self.folders.cache.as_mut(), self.folders.runs.as_mut(), self.folders.state.as_mut()];
        let all = tls.chain(auth).chain(folders);
        all.flatten().chain(&mut self.folders.roots).collect()
    }

    fn problems(&self, place: &dyn Fn(&str) -> String) -> Vec<Error> {
        let mut found = Problems { place, errors: Vec::new() };
        match (self.queue.kind, &self.queue.url) {
            (QueueKind::Redis, None) => {
                found.conflict("queue.kind", "redis", "it needs an address; write queue.url = \"redis://host:6379\"");
            }
            (QueueKind::Embedded | QueueKind::Memory, Some(url)) => {
                found.conflict("queue.url", url, "only queue.kind = \"redis\" has an address");
            }
            _ => {}
        }
        if self.tls.cert.is_some() != self.tls.key.is_some() {
            found.conflict("tls", "a table", "tls.cert and tls.key belong together; write both or none");
        }
        if self.tls.client_cert.is_some() != self.tls.client_key.is_some() {
            let fix = "tls.client_cert and tls.client_key belong together; write both or none";
            found.conflict("tls", "a table", fix);
        }
        if self.tls.require_client && self.tls.ca.is_none() {
            found.conflict("tls.require_client", "true", "it needs tls.ca to check the callers' certificates against");
        }
        if self.device.kind == DeviceKind::Cpu && !self.device.indices.is_empty() {
            let indices = format!("{:?}", self.device.indices);
            found.conflict(
                "device.indices",
                &indices,
                "the CPU has no index; remove it or write device.kind = \"cuda\"",
            );
        }
        self.check_addresses(&mut found);
        // Without a scheme the exporter would take it for https.
        let endpoint = self.telemetry.otlp_endpoint.as_deref();
        if let Some(url) = endpoint.filter(|url| !url.starts_with("http://") && !url.starts_with("https://")) {
            found.conflict("telemetry.otlp_endpoint", url, "an endpoint is a URL, for example http://collector:4317");
        }
        found.errors
    }
}

impl Deployment {
    fn check_addresses(&self, found: &mut Problems<'_>) {
        let listen = &self.listen;
        let all = [
            ("listen.coordinator", &listen.coordinator),
            ("listen.rollout", &listen.rollout),
            ("listen.judge", &listen.judge),
            ("listen.learner", &listen.learner),
            ("listen.metrics", &listen.metrics),
        ];
        for (key, address) in all {
            let Some(address) = address else { continue };
            let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port);
            if port.is_none_or(|port| port.parse::<u16>().is_err()) {
                found.conflict(key, address, "an address is host:port, for example 0.0.0.0:7700");
            }
        }
    }
}
