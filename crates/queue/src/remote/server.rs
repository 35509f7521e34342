//! Whether a server keeps what it is given.

use std::collections::BTreeMap;

use crate::{Error, Result};

/// Checks what `INFO` says: the version, that it is a server of its own, that nothing is evicted, and that what was acknowledged is on disk.
///
/// # Errors
/// [`Error::Server`] with the setting to change.
pub(super) fn check(server: &str, info: &str) -> Result<()> {
    let told: BTreeMap<&str, &str> = info.lines().filter_map(|line| line.split_once(':')).collect();
    let get = |name: &str| told.get(name).map_or("", |value| value.trim());
    let refuse = |reason: String| Err(Error::Server { server: server.to_owned(), reason });
    let version = get("redis_version");
    let major: u32 = version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or_default();
    if major < 6 {
        return refuse(format!("it is version {version:?}; use Redis 6 or newer"));
    }
    if get("cluster_enabled") == "1" {
        return refuse("it is a node of a cluster, which may move a run's keys; use a server of its own".into());
    }
    if get("role") != "master" {
        return refuse(format!(
            "it has the role {:?} and takes no records; name the server that it copies",
            get("role")
        ));
    }
    let (limit, policy) = (get("maxmemory"), get("maxmemory_policy"));
    if !matches!(limit, "0" | "") && policy != "noeviction" {
        return refuse(format!(
            "it forgets records when it has more than {limit} bytes (maxmemory-policy {policy}); set maxmemory-policy noeviction"
        ));
    }
    if get("aof_enabled") != "1" {
        return refuse("it loses acknowledged records when it ends (appendonly no); set appendonly yes".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(version: &str, maxmemory: &str, policy: &str, aof: &str) -> String {
        format!(
            "# Server\r\nredis_version:{version}\r\nrole:master\r\nmaxmemory:{maxmemory}\r\nmaxmemory_policy:{policy}\r\naof_enabled:{aof}\r\n"
        )
    }

    #[test]
    fn a_server_that_loses_records_is_refused_with_the_setting() {
        check("x", &told("7.0.15", "0", "noeviction", "1")).expect("it keeps everything");
        check("x", &told("7.0.15", "0", "allkeys-lru", "1")).expect("without a limit nothing is evicted");
        for (info, reason) in [
            (told("5.0.9", "0", "noeviction", "1"), "version \"5.0.9\""),
            (told("7.0.15", "1000", "allkeys-lru", "1"), "set maxmemory-policy noeviction"),
            (told("7.0.15", "1000", "volatile-ttl", "1"), "set maxmemory-policy noeviction"),
            (told("7.0.15", "0", "noeviction", "0"), "set appendonly yes"),
            (told("7.0.15", "0", "noeviction", "1").replace("master", "slave"), "name the server that it copies"),
            (told("7.0.15", "0", "noeviction", "1") + "cluster_enabled:1\r\n", "use a server of its own"),
            (String::new(), "version"),
        ] {
            let error = check("redis://x", &info).expect_err("refused").to_string();
            assert!(error.contains(reason) && error.contains("redis://x"), "{error}");
        }
    }
}
