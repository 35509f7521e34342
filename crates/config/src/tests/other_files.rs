//! The files of `joust sft`, `joust train-reward` and the deployment.

use std::path::Path;

use crate::{ConfigFile, Deployment, DeviceKind, Error, OfflineLearner, Resolved, RewardFile, SftFile, dump, resolve};

const SFT: &str = r#"
schema = 1
name = "base"
[model.new]
hidden_size = 128
intermediate_size = 384
num_hidden_layers = 4
num_attention_heads = 4
num_key_value_heads = 2
max_position_embeddings = 256
[tokenizer]
vocab_size = 1024
[data]
train = "corpus.jsonl"
max_length = 128
[learner]
batch_size = 64
learning_rate = 1e-3
steps = 400
"#;

const REWARD: &str = r#"
schema = 1
name = "rm"
model = { base = "../base" }
data = { train = "pairs.jsonl" }
loss = { center_rewards_coefficient = 0.01, margin = "scale" }
"#;

fn read<F: ConfigFile>(text: &str, sets: &[&str]) -> Result<Resolved<F>, Error> {
    let sets: Vec<String> = sets.iter().map(|text| (*text).to_owned()).collect();
    resolve(text, Path::new("conf/file.toml"), &sets, &[])
}

fn refusal<F: ConfigFile>(text: &str, sets: &[&str]) -> String {
    read::<F>(text, sets).err().expect("refused").to_string()
}

#[test]
fn sft_files_resolve_and_come_back() {
    let first: Resolved<SftFile> = read(SFT, &[]).expect("valid");
    assert_eq!(first.run.model.new.as_ref().map(|new| new.hidden_size), Some(128));
    assert_eq!(first.run.learner.optim.steps, Some(400));
    assert_eq!(first.run.learner.optim.adam_beta2, 0.999);
    assert_eq!(first.run.learner.learning_rate, 1e-3);
    assert_eq!(first.run.output.dir, Path::new("runs/base"));
    let second: Resolved<SftFile> = read(&dump(&first).expect("plain"), &[]).expect("valid");
    assert_eq!((second.run, second.hash), (first.run, first.hash));
}

#[test]
fn sft_needs_one_model_and_the_tokenizer_that_goes_with_it() {
    for (sets, reason) in [
        (vec!["model.base=x"], "model.base is set as well"),
        (vec!["model.new.hidden_size=130"], "it must be a multiple of 2 x num_attention_heads = 8"),
        (vec!["model.new.num_key_value_heads=3"], "it must divide num_attention_heads = 4"),
        (vec!["data.max_length=300"], "model.new.max_position_embeddings is 256"),
        (vec!["model={}"], "write model.base (a folder) or model.new (a shape)"),
        (vec!["model={ base = \"x\" }"], "a base model brings its own tokenizer"),
    ] {
        let text = refusal::<SftFile>(SFT, &sets);
        assert!(text.contains(reason), "{sets:?}: {text}");
    }
    let text = refusal::<SftFile>(&SFT.replace("[tokenizer]\nvocab_size = 1024", ""), &[]);
    assert!(text.contains("write tokenizer.vocab_size"), "{text}");
    assert_eq!(
        refusal::<SftFile>(SFT, &["learner.batchsize=2"]),
        "unknown key learner.batchsize in --set learner.batchsize=2; did you mean learner.batch_size?"
    );
}

#[test]
fn reward_files_resolve_and_come_back() {
    let first: Resolved<RewardFile> = read(REWARD, &[]).expect("valid");
    assert_eq!(first.run.loss.margin, crate::MarginUse::Scale);
    assert_eq!(first.run.learner, OfflineLearner::default());
    let second: Resolved<RewardFile> = read(&dump(&first).expect("plain"), &[]).expect("valid");
    assert_eq!((second.run, second.hash), (first.run, first.hash));
    assert_eq!(
        refusal::<RewardFile>(REWARD, &["loss.center_rewards_coefficient=-1"]),
        "loss.center_rewards_coefficient = -1 in --set loss.center_rewards_coefficient=-1 is not valid: expected a number of \
         at least 0"
    );
}

#[test]
fn a_reward_file_does_one_thing_and_has_the_data_for_it() {
    for (sets, reason) in [
        (vec!["loss.margin=legend"], "write data.safety"),
        (vec!["data.safety=safety.jsonl"], "only loss.margin = \"legend\" reads it"),
        (vec!["loss.components=4"], "loss.components takes the place of training; write one of the two keys"),
        (vec!["loss={ components = 4, combine = true }"], "loss.combine = set in --set"),
        (vec!["loss={ combine = true, center_rewards_coefficient = 0.1 }"], "loss.center_rewards_coefficient = 0.1"),
        (vec!["loss={ attributes = [\"joy\"], components = 4 }"], "loss.attributes regresses on ratings"),
        (vec!["loss={ prototypes = 2, new_users = true }"], "loss.prototypes has a loss of its own; write one"),
        (vec!["loss.places=8"], "loss.places = 8 in --set loss.places=8"),
        (vec!["loss.user_learning_rate=0.1"], "only loss.prototypes and loss.new_users read it"),
        (vec!["loss={ components = 4 }", "data.safety=safety.jsonl"], "data.safety = set"),
    ] {
        let text = refusal::<RewardFile>(REWARD, &sets);
        assert!(text.contains(reason), "{sets:?}: {text}");
    }
    let legend: Resolved<RewardFile> =
        read(REWARD, &["loss.margin=legend", "data.safety=safety.jsonl"]).expect("valid");
    assert!(legend.run.data.safety.is_some_and(|path| path.ends_with("safety.jsonl")));
    let alone = ["loss.components=4", "loss.margin=none", "loss.center_rewards_coefficient=0"];
    let components: Resolved<RewardFile> = read(REWARD, &alone).expect("valid");
    assert_eq!(components.run.loss.components, 4);
}

#[test]
fn deployment_files_resolve() {
    let least: Resolved<Deployment> = read("schema = 1", &[]).expect("valid");
    assert_eq!(least.run, Deployment::default());
    let text = r#"
schema = 1
queue = { kind = "redis", url = "redis://queue:6379" }
listen = { coordinator = "0.0.0.0:7700", metrics = "[::1]:0" }
tls = { cert = "tls.crt", key = "tls.key", ca = "ca.crt", require_client = true }
device = { kind = "cuda", indices = [0, 1] }
threads = { tensor = 2 }
"#;
    let env = [("JOUST_DEPLOYMENT__THREADS__TENSOR".to_owned(), "3".to_owned())];
    let full: Resolved<Deployment> = resolve(text, Path::new("/etc/joust.toml"), &[], &env).expect("valid");
    assert_eq!(full.run.device.kind, DeviceKind::Cuda);
    assert_eq!(full.run.threads.tensor, 3);
    assert_eq!(full.run.tls.key.as_deref(), Some(Path::new("/etc/tls.key")));
}

#[test]
fn deployment_files_are_checked() {
    for (sets, reason) in [
        (vec!["queue.kind=redis"], "write queue.url"),
        (vec!["queue.url=redis://x"], "only queue.kind = \"redis\" has an address"),
        (vec!["tls.cert=a"], "tls.cert and tls.key belong together"),
        (vec!["tls.client_key=a"], "tls.client_cert and tls.client_key belong together"),
        (vec!["tls.require_client=true"], "it needs tls.ca"),
        (vec!["device.kind=cpu", "device.indices=[0]"], "the CPU has no index"),
        (vec!["listen.judge=:80"], "an address is host:port"),
        (vec!["listen.judge=here:70000"], "an address is host:port"),
        (vec!["listen.jugde=here:1"], "did you mean listen.judge?"),
        (vec!["queue.kind=kafka"], "known are embedded, memory, redis"),
    ] {
        let text = refusal::<Deployment>("schema = 1", &sets);
        assert!(text.contains(reason), "{sets:?}: {text}");
    }
}
