//! The folder of a local cluster: certificates, tokens, deployment file, Redis and logs.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
};

use anyhow::Context;
use joust_rpc::{Scope, certs, new_token};
use serde_json::json;

use crate::{
    args::UpArgs,
    remote::{CLUSTER_FILE, Cluster},
};

/// Where everything of a cluster lies.
pub(super) struct Layout {
    pub(super) folder: PathBuf,
    pub(super) redis_port: u16,
    coordinator_port: u16,
}

impl Layout {
    /// Makes what is missing: certificates and tokens stay from one start to the next, so do the ports where they are free.
    pub(super) fn make(folder: &Path, args: &UpArgs) -> anyhow::Result<Self> {
        for name in ["log", "tokens", "redis", "runs", "state", "cache"] {
            let path = folder.join(name);
            fs::create_dir_all(&path).with_context(|| format!("failed to create {}", path.display()))?;
        }
        if !folder.join("certs/ca.pem").is_file() {
            certs::make(&folder.join("certs"), &["localhost".into(), "127.0.0.1".into()])?;
        }
        let before: Ports = fs::read(folder.join("ports.json"))
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        let ports = Ports { redis: free(before.redis)?, coordinator: free(before.coordinator)? };
        fs::write(folder.join("ports.json"), serde_json::to_vec(&ports)?).context("failed to write the ports")?;
        let layout = Self { folder: folder.to_owned(), redis_port: ports.redis, coordinator_port: ports.coordinator };
        layout.secrets()?;
        layout.deployment(args)?;
        Ok(layout)
    }

    /// Writes where the cluster is found.
    pub(super) fn publish(&self) -> anyhow::Result<Cluster> {
        let cluster = Cluster {
            schema: 1,
            coordinator: format!("https://127.0.0.1:{}", self.coordinator_port),
            ca: self.folder.join("certs/ca.pem"),
            token_file: self.folder.join("tokens/admin"),
            identity: None,
            pid: std::process::id(),
            folder: self.folder.clone(),
        };
        crate::run::folder::write_atomically(
            &self.folder.join(CLUSTER_FILE),
            &serde_json::to_string_pretty(&cluster)?,
        )?;
        Ok(cluster)
    }

    /// Says that there is no cluster any more.
    pub(super) fn retract(&self) {
        // A file that stays names a process that is gone.
        let _ = fs::remove_file(self.folder.join(CLUSTER_FILE));
    }

    /// Makes tokens and the password of Redis, each once.
    fn secrets(&self) -> anyhow::Result<()> {
        let mut known = String::new();
        for scope in [Scope::Read, Scope::Submit, Scope::Worker, Scope::Admin] {
            let token = self.secret(&format!("tokens/{}", scope.name()))?;
            let sha256 = joust_rpc::Token::new(&token).sha256();
            known +=
                &format!("[[token]]\nname = {:?}\nscope = {:?}\nsha256 = {sha256:?}\n\n", scope.name(), scope.name());
        }
        crate::run::folder::write_atomically(&self.folder.join("tokens/tokens.toml"), &known)?;
        let password = self.secret("redis/password")?;
        let conf = format!(
            "bind 127.0.0.1\nport {}\ndir {}\nsave \"\"\nappendonly yes\nappendfsync always\nmaxmemory-policy noeviction\nrequirepass {password}\n",
            self.redis_port,
            self.folder.join("redis").display()
        );
        private(&self.folder.join("redis/redis.conf"), &conf)
    }

    /// Returns a secret that is made once.
    fn secret(&self, name: &str) -> anyhow::Result<String> {
        let path = self.folder.join(name);
        if let Ok(found) = fs::read_to_string(&path) {
            return Ok(found);
        }
        let made = new_token().secret().to_owned();
        private(&path, &made)?;
        Ok(made)
    }

    fn deployment(&self, args: &UpArgs) -> anyhow::Result<()> {
        let at = |name: &str| self.folder.join(name).display().to_string();
        let roots: Vec<String> = args
            .roots
            .iter()
            .map(|root| {
                Ok(root
                    .canonicalize()
                    .with_context(|| format!("--root {} is not there", root.display()))?
                    .display()
                    .to_string())
            })
            .collect::<anyhow::Result<_>>()?;
        let own = json!({
            "schema": 1,
            "queue": { "kind": "redis", "url": format!("redis://127.0.0.1:{}", self.redis_port) },
            "listen": {
                "coordinator": format!("127.0.0.1:{}", self.coordinator_port),
                "rollout": "127.0.0.1:0", "judge": "127.0.0.1:0", "learner": "127.0.0.1:0",
            },
            "connect": { "coordinator": format!("https://127.0.0.1:{}", self.coordinator_port) },
            "tls": {
                "cert": at("certs/server.pem"), "key": at("certs/server.key"), "ca": at("certs/ca.pem"),
                "client_cert": at("certs/client.pem"), "client_key": at("certs/client.key"),
            },
            "auth": { "tokens_file": at("tokens/tokens.toml"), "token_file": at("tokens/worker"), "redis_password_file": at("redis/password") },
            "threads": { "tensor": args.threads },
            "folders": { "roots": roots, "runs": at("runs"), "state": at("state"), "cache": at("cache") },
        });
        let text = toml::to_string(&own)?;
        crate::run::folder::write_atomically(&self.folder.join("joust.toml"), &text)
    }
}

/// Ports of the last start.
#[derive(Default, serde::Serialize, serde::Deserialize)]
struct Ports {
    redis: u16,
    coordinator: u16,
}

/// Returns this port if it is free, else one that is.
fn free(wanted: u16) -> anyhow::Result<u16> {
    let listen = |port: u16| TcpListener::bind(("127.0.0.1", port));
    let listener = listen(wanted).or_else(|_| listen(0)).context("no port is free")?;
    Ok(listener.local_addr()?.port())
}

/// Writes a file that its owner alone reads.
fn private(path: &Path, text: &str) -> anyhow::Result<()> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    let failed = || format!("failed to write {}", path.display());
    let staging = path.with_extension("staging");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&staging)
        .with_context(failed)?;
    file.write_all(text.as_bytes()).with_context(failed)?;
    fs::rename(&staging, path).with_context(failed)
}
