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
        let mut own = Vec::new();
        for scope in [Scope::Read, Scope::Submit, Scope::Worker, Scope::Admin] {
            let token = self.secret(&format!("tokens/{}", scope.name()))?;
            own.push((scope.name(), joust_rpc::Token::new(&token).sha256()));
        }
        let path = self.folder.join("tokens/tokens.toml");
        let before = match fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            read => read.with_context(|| format!("failed to read {}", path.display()))?,
        };
        if let Some(now) = tokens(&before, &own).with_context(|| format!("{} does not parse", path.display()))? {
            crate::run::folder::write_atomically(&path, &now)?;
        }
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

/// Returns the token file with these tokens, by scope, instead of others of their names; what an operator wrote beside them stays. `None` where
/// nothing is to change.
fn tokens(before: &str, own: &[(&str, String)]) -> anyhow::Result<Option<String>> {
    let mut file: toml::Table = toml::from_str(before)?;
    let entries = file.entry("token").or_insert_with(|| toml::Value::Array(Vec::new()));
    let entries = entries.as_array_mut().context("token is no list of tables")?;
    let text = |entry: &toml::Value, key: &str| entry.get(key).and_then(toml::Value::as_str).map(str::to_owned);
    let is_ours = |entry: &toml::Value| own.iter().any(|(name, _)| text(entry, "name").as_deref() == Some(*name));
    let there = |(name, hash): &(&str, String)| {
        entries
            .iter()
            .any(|entry| text(entry, "name").as_deref() == Some(*name) && text(entry, "sha256").as_ref() == Some(hash))
    };
    if own.iter().all(there) && entries.iter().filter(|entry| is_ours(entry)).count() == own.len() {
        return Ok(None);
    }
    entries.retain(|entry| !is_ours(entry));
    for (name, hash) in own {
        let entry = [("name", *name), ("scope", *name), ("sha256", hash)];
        let entry = entry.map(|(key, value)| (key.to_owned(), toml::Value::String(value.to_owned())));
        entries.push(toml::Value::Table(entry.into_iter().collect()));
    }
    Ok(Some(toml::to_string(&file)?))
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
    joust_core::scratch::write_privately(path, text.as_bytes())
        .with_context(|| format!("failed to write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_operator_wrote_stays_and_what_was_replaced_goes() {
        let own = |hash: &str| vec![("read", hash.to_owned()), ("admin", "b".to_owned())];
        let first = tokens("", &own("a")).expect("parses").expect("made");
        assert_eq!(tokens(&first, &own("a")).expect("parses"), None);
        let more = format!("{first}\n[[token]]\nname = \"ci\"\nscope = \"submit\"\nsha256 = \"c\"\n");
        assert_eq!(tokens(&more, &own("a")).expect("parses"), None, "nothing is to change");
        let rotated = tokens(&more, &own("d")).expect("parses").expect("changed");
        assert!(rotated.contains("\"ci\"") && rotated.contains("\"d\"") && !rotated.contains("\"a\""), "{rotated}");
        assert!(tokens("token = 1", &own("a")).is_err());
    }
}
