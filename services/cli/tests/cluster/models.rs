//! Models reach workers that see neither the roots nor the runs: policy and tokenizer, published weights, and the model of a judge.

use std::{fs, path::Path};

use joust_model::{load, publish_folder};
use joust_testkit::tiny_folder;

use crate::{
    harness::{Cluster, LIMIT, wait_until_done},
    twin,
};

/// The run of the twins, judged by a reward model that draws its head.
fn inputs(root: &Path) {
    twin::inputs(root);
    let base = root.join("base");
    tiny_folder(&base, 9);
    let (config, mut weights) = load(&base).expect("a model");
    let config = config.with_score_head(Some(0));
    let drawn = weights.0["model.embed_tokens.weight"].narrow(0, 7, 1).copy();
    weights.0.insert("score.weight".into(), drawn);
    publish_folder(&root.join("reward"), &base, &config, &weights).expect("written");
    let text = fs::read_to_string(root.join("run.toml")).expect("a run file");
    let own = text
        .replace("kind = \"rule\"", "kind = \"reward_model\"\nmodel = \"reward\"")
        .lines()
        .filter(|line| !line.starts_with("rules"))
        .map(|line| format!("{line}\n"))
        .collect::<String>();
    fs::write(root.join("run.toml"), own).expect("written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn workers_without_shared_folders_get_all_models_from_the_learner() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("inputs");
    inputs(&root);
    let Some(mut cluster) = Cluster::start_redis(&folder.path().join("cluster"), &root) else { return };
    let alone = twin::alone(&root, "twin");
    let apart = ["folders.share_weights=false".to_owned(), "folders.roots=[]".to_owned()];
    for (role, settings) in [("coordinator", &[][..]), ("learner", &[]), ("judge", &apart), ("rollout", &apart)] {
        let name = if role == "coordinator" { role.to_owned() } else { format!("{role}-0") };
        cluster.start_part((role, &name), settings);
    }
    twin::submit(&cluster, &root, "twin");
    wait_until_done(&cluster, "twin", LIMIT).await;
    twin::same(&cluster, "twin", &alone);
    let cached = cluster.folder.join("cache/judge-0/twin/judge-letters/model.safetensors");
    assert_eq!(fs::read(cached).expect("fetched"), fs::read(root.join("reward/model.safetensors")).expect("there"));
}
