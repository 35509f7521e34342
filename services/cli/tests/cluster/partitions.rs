//! Each edge between two processes of a cluster is cut for a while: what is on both sides lives on, and the run ends as if nothing was.

use std::{collections::BTreeMap, fs, net::TcpListener, path::Path, time::Duration};

use crate::{
    books,
    harness::{Cluster, LIMIT, accounts, run_now, wait_for, wait_until_done},
    proxy::Proxy,
    twin,
};

/// Who calls whom.
const EDGES: [(&str, &str); 8] = [
    ("rollout", "coordinator"),
    ("judge", "coordinator"),
    ("learner", "coordinator"),
    ("rollout", "redis"),
    ("judge", "redis"),
    ("learner", "redis"),
    ("coordinator", "redis"),
    ("rollout", "learner"),
];

/// How long an edge is cut: 10 s with `JOUST_CHAOS`; else longer than all leases where a learner is cut off, and as long as shows the way
/// elsewhere.
fn cut_time(edge: (&str, &str)) -> Duration {
    let long = std::env::var_os("JOUST_CHAOS").is_some();
    Duration::from_secs(match edge {
        _ if long => 10,
        ("learner", _) => 7,
        _ => 1,
    })
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr()).expect("a port").port()
}

/// Returns the ports of Redis and of the coordinator.
fn ports(cluster: &Path) -> (u16, u16) {
    let text = fs::read(cluster.join("ports.json")).expect("the ports");
    let ports: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    let port = |name: &str| ports[name].as_u64().expect("a port") as u16;
    (port("redis"), port("coordinator"))
}

/// Puts a proxy on each edge and starts the parts behind them.
async fn behind_proxies(cluster: &mut Cluster) -> BTreeMap<(&'static str, &'static str), Proxy> {
    let (redis, coordinator) = ports(&cluster.folder);
    let learner = free_port();
    let mut proxies = BTreeMap::new();
    for (from, to) in EDGES {
        let port = match to {
            "redis" => redis,
            "coordinator" => coordinator,
            _ => learner,
        };
        proxies.insert((from, to), Proxy::start(port).await);
    }
    let queue = |from| format!("queue.url=\"redis://127.0.0.1:{}\"", proxies[&(from, "redis")].port);
    cluster.start_part(("coordinator", "coordinator"), &[queue("coordinator")]);
    for role in ["learner", "judge", "rollout"] {
        let coordinator = proxies[&(role, "coordinator")].port;
        let mut settings = vec![queue(role), format!("connect.coordinator=\"https://127.0.0.1:{coordinator}\"")];
        // So that they cross the edge.
        settings.push("folders.share_weights=false".into());
        if role == "learner" {
            settings.push(format!("listen.learner=\"127.0.0.1:{learner}\""));
            settings.push(format!("listen.advertise=\"127.0.0.1:{}\"", proxies[&("rollout", "learner")].port));
        }
        cluster.start_part((role, &format!("{role}-0")), &settings);
    }
    proxies
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_edge_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("inputs");
    twin::inputs(&root);
    let Some(mut cluster) = Cluster::start_redis(&folder.path().join("cluster"), &root) else { return };
    let proxies = behind_proxies(&mut cluster).await;
    let mut client = cluster.client();
    println!("{:<24} {:>8} {:>10} {:>8}", "cut edge", "cut s", "at step", "weights");
    for (from, to) in EDGES {
        let name = format!("{from}-{to}");
        let alone = twin::alone(&root, &name);
        twin::submit(&cluster, &root, &name);
        let moving = wait_for("three steps", LIMIT, async || {
            run_now(&mut client, &name).await.filter(|run| run.steps_done >= 3)
        });
        let at = moving.await.steps_done;
        let proxy = &proxies[&(from, to)];
        proxy.cut();
        tokio::time::sleep(cut_time((from, to))).await; // how long it is cut is what is tested
        proxy.heal();
        wait_until_done(&cluster, &name, LIMIT).await;
        twin::same(&cluster, &name, &alone);
        books::balance(&accounts(&cluster, &name).await, twin::STEPS * twin::PROMPTS);
        println!("{from:>11} to {to:<9} {:>8} {at:>10} {:>8}", cut_time((from, to)).as_secs(), "equal");
    }
}
