//! Adapters: their sum against merged weights, gradients against autograd through the merge, keyed dropout, PEFT folders.

use std::{collections::BTreeMap, path::Path};

use joust_model::{
    Adapter, DropoutKey, Dtype, Error, Llama, LoraConfig, ModelConfig, Weights, open, publish_adapter, read_adapter,
};
use joust_testkit::{tiny_config, tiny_folder, tiny_weights};
use tch::{Device::Cpu, Kind, Tensor};

const KEY: DropoutKey = DropoutKey { seed: 1, step: 2, micro_batch: 3 };

fn lora(targets: &[&str]) -> LoraConfig {
    let targets = targets.iter().map(|target| (*target).to_owned()).collect();
    LoraConfig { rank: 3, alpha: 6.0, dropout: 0.0, targets, rank_stabilized: false, exceptions: BTreeMap::new() }
}

/// Draws an adapter whose B is not zero.
fn adapter(config: &LoraConfig, model: &ModelConfig) -> Adapter {
    let mut adapter = Adapter::fresh(config, model, 4).expect("targets match");
    tch::manual_seed(5);
    for (name, tensor) in &mut adapter.weights.0 {
        if name.contains("lora_B") {
            *tensor = tensor.randn_like() * 0.3;
        }
    }
    adapter
}

fn ids() -> Tensor {
    let ids: Vec<i64> = (0..14).map(|i| (i * 37) % 90 + 3).collect();
    Tensor::from_slice(&ids).view([2, 7])
}

fn distance(a: &Tensor, b: &Tensor) -> f64 {
    (a.to_kind(Kind::Double) - b.to_kind(Kind::Double)).abs().max().double_value(&[])
}

const SETS: [&[&str]; 4] =
    [&["all-linear"], &["q_proj", "v_proj"], &["mlp.up_proj", "o_proj"], &["model.layers.1.self_attn.k_proj"]];

#[test]
fn an_adapter_adds_what_merging_adds() {
    let (config, weights) = (tiny_config(100), tiny_weights(&tiny_config(100), 1));
    let base = Llama::new(&config, &weights).expect("built");
    for targets in SETS {
        let adapter = adapter(&lora(targets), &config);
        let merged = Llama::new(&config, &adapter.merged(&weights).expect("merged")).expect("built");
        let ours = base.with_adapter(&adapter, None).expect("adapted");
        assert_eq!(ours.lora(), Some(&lora(targets)));
        let (found, expected) = (ours.hidden(&ids()), merged.hidden(&ids()));
        assert!(distance(&found, &expected) < 1e-5, "{targets:?}: {}", distance(&found, &expected));
        assert!(distance(&found, &base.hidden(&ids())) > 1e-2, "{targets:?} changes something");
        // The base below an adapter is the base, and another adapter replaces the first.
        assert_eq!(ours.base().hidden(&ids()), base.hidden(&ids()));
        let nothing = Adapter::fresh(&lora(&["all-linear"]), &config, 1).expect("fresh");
        assert!(
            distance(&ours.with_adapter(&nothing, None).expect("adapted").hidden(&ids()), &base.hidden(&ids())) < 1e-6
        );
    }
}

#[test]
fn gradients_are_those_through_the_merge_and_reach_the_adapter_alone() {
    let (config, weights) = (tiny_config(100), tiny_weights(&tiny_config(100), 1));
    let lora = lora(&["all-linear"]);
    let gradients = |model: &dyn Fn(&Adapter) -> Llama| {
        let mut adapter = adapter(&lora, &config);
        adapter.weights.0.values_mut().for_each(|tensor| *tensor = tensor.set_requires_grad(true));
        let hidden = model(&adapter).hidden(&ids());
        let signs = (Tensor::arange(hidden.numel() as i64, (Kind::Float, Cpu)) * 0.7).sin().view_as(&hidden);
        (hidden * signs).sum(Kind::Float).backward();
        adapter.weights.0.iter().map(|(name, tensor)| (name.clone(), tensor.grad())).collect::<BTreeMap<_, _>>()
    };
    let base = Llama::new(&config, &weights).expect("built");
    let found = gradients(&|adapter| base.with_adapter(adapter, None).expect("adapted"));
    let expected = gradients(&|adapter| {
        let merge = |(name, tensor): (&String, &Tensor)| {
            let side = |side: char| adapter.weights.0.get(&name.replace(".weight", &format!(".lora_{side}.weight")));
            let sum = side('A').zip(side('B')).map_or_else(|| tensor.copy(), |(a, b)| tensor + b.matmul(a) * 2.0);
            (name.clone(), sum)
        };
        Llama::new(&config, &Weights(weights.0.iter().map(merge).collect())).expect("built")
    });
    assert_eq!(found.len(), 2 * 7 * 2);
    for (name, gradient) in &found {
        let scale = 1.0 + expected[name].abs().max().double_value(&[]);
        assert!(distance(gradient, &expected[name]) < 1e-4 * scale, "{name}");
        assert!(gradient.abs().max().double_value(&[]) > 0.0, "{name}");
    }
    assert!(weights.0.values().all(|tensor| !tensor.grad().defined()), "the base has no gradient");
}

#[test]
fn a_decoder_for_sampling_adds_the_adapter_to_every_token() {
    for (dtype, tolerance) in [(Dtype::Float32, 1e-4), (Dtype::Bfloat16, 0.3)] {
        let config = tiny_config(100).with_dtype(dtype);
        let weights = tiny_weights(&config, 1).to_kind(dtype.kind());
        let base = Llama::for_sampling(&config, &weights).expect("built");
        let wide = tiny_config(100);
        for targets in SETS {
            let adapter = adapter(&lora(targets), &config);
            let ours = tch::no_grad(|| base.with_adapter(&adapter, None)).expect("adapted");
            let merged = adapter.merged(&weights.to_kind(Kind::Float)).expect("merged");
            let merged = Llama::new(&wide, &merged).expect("built");
            let (ids, padding) = (ids(), Tensor::from_slice(&[0i64, 2]));
            let (mut cache, _) = ours.prefill(&ids.narrow(1, 0, 6), &padding, 8);
            let (mut other, _) = merged.prefill(&ids.narrow(1, 0, 6), &padding, 8);
            let last = ids.select(1, 6);
            let (found, expected) = (ours.decode(&last, &mut cache), merged.decode(&last, &mut other));
            let error = distance(&found, &expected) / expected.abs().max().double_value(&[]);
            assert!(error < tolerance, "{targets:?} in {dtype:?}: {error}");
        }
    }
}

#[test]
fn dropout_is_a_function_of_its_key() {
    let (config, weights) = (tiny_config(100), tiny_weights(&tiny_config(100), 1));
    let base = Llama::new(&config, &weights).expect("built");
    let adapter = adapter(&LoraConfig { dropout: 0.5, ..lora(&["all-linear"]) }, &config);
    let run = |key| base.with_adapter(&adapter, key).expect("adapted").hidden(&ids());
    let whole = run(Some(KEY));
    assert_eq!(run(Some(KEY)), whole, "the same forward twice");
    for other in [DropoutKey { seed: 2, ..KEY }, DropoutKey { step: 1, ..KEY }, DropoutKey { micro_batch: 0, ..KEY }] {
        assert!(distance(&run(Some(other)), &whole) > 1e-3, "{other:?}");
    }
    // Without a key nothing is dropped.
    let merged = Llama::new(&config, &adapter.merged(&weights).expect("merged")).expect("built");
    assert!(distance(&run(None), &merged.hidden(&ids())) < 1e-5);
    assert!(distance(&run(None), &whole) > 1e-3);
}

#[test]
fn layers_that_are_computed_again_draw_the_same_masks() {
    let (config, weights) = (tiny_config(100), tiny_weights(&tiny_config(100), 1));
    let base = Llama::new(&config, &weights).expect("built");
    let gradients = |again: bool| {
        let mut adapter = adapter(&LoraConfig { dropout: 0.5, ..lora(&["all-linear"]) }, &config);
        adapter.weights.0.values_mut().for_each(|tensor| *tensor = tensor.set_requires_grad(true));
        let model = base.with_adapter(&adapter, Some(KEY)).expect("adapted").recomputing(again);
        model.hidden(&ids()).square().sum(Kind::Float).backward();
        adapter.weights.0.into_values().map(|tensor| tensor.grad()).collect::<Vec<_>>()
    };
    let (kept, again) = (gradients(false), gradients(true));
    assert!(kept.iter().all(|gradient| gradient.abs().max().double_value(&[]) > 0.0));
    assert_eq!(kept, again);
}

fn edit(folder: &Path, change: impl FnOnce(&mut serde_json::Value)) {
    let path = folder.join("adapter_config.json");
    let mut value = serde_json::from_str(&std::fs::read_to_string(&path).expect("read")).expect("JSON");
    change(&mut value);
    std::fs::write(path, value.to_string()).expect("written");
}

#[test]
fn peft_folders_go_out_and_come_back() {
    let root = tempfile::tempdir().expect("a folder");
    let (base, out) = (root.path().join("base"), root.path().join("adapter"));
    tiny_folder(&base, 3);
    let (config, weights, none) = open(&base).expect("a model");
    assert!(none.is_none());
    let mine = adapter(&LoraConfig { dropout: 0.25, ..lora(&["q_proj", "down_proj"]) }, &config);
    publish_adapter(&out, &base, &mine).expect("published");
    assert!(out.join("tokenizer.json").is_file() && !out.join("model.safetensors").exists());
    let (_, same, found) = open(&out).expect("an adapter");
    let found = found.expect("an adapter");
    assert_eq!(same.hash().expect("hash"), weights.hash().expect("hash"));
    assert_eq!(found.adapter.config, mine.config);
    assert_eq!(found.adapter.weights.hash().expect("hash"), mine.weights.hash().expect("hash"));
    // A base beside the adapter is found from the adapter's folder.
    edit(&out, |keys| keys["base_model_name_or_path"] = "../base".into());
    open(&out).expect("a relative base");

    let message = || open(&out).expect_err("refused").to_string();
    edit(&out, |keys| keys["use_dora"] = true.into());
    assert!(message().contains("use_dora is true, supported is false"), "{}", message());
    edit(&out, |keys| (keys["use_dora"], keys["r"]) = (false.into(), 4.into()));
    assert!(message().contains("its shape is [3, 32], the base and r say [4, 32]"), "{}", message());
    edit(&out, |keys| (keys["r"], keys["target_modules"]) = (3.into(), vec!["q_proj"].into()));
    assert!(message().contains("no target of adapter_config.json has such a tensor"), "{}", message());
    edit(&out, |keys| keys["base_model_name_or_path"] = "some/hub-id".into());
    assert!(message().contains("base_model_name_or_path is \"some/hub-id\""), "{}", message());
    std::fs::remove_file(out.join("adapter_model.safetensors")).expect("removed");
    let error = read_adapter(&out, &config).expect_err("refused");
    assert!(matches!(error, Error::MissingFile { .. }), "{error}");
}

#[test]
fn a_target_that_matches_nothing_lists_the_modules() {
    let config = tiny_config(100);
    for target in ["query", "proj", "lm_head", "model.layers.2.self_attn.q_proj", "self_attn"] {
        let error = Adapter::fresh(&lora(&["q_proj", target]), &config, 0).expect_err("refused").to_string();
        assert!(error.contains(&format!("LoRA target {target:?} matches no module")), "{error}");
        assert!(error.contains("self_attn.q_proj") && error.contains("mlp.down_proj"), "{error}");
    }
}

#[test]
fn a_fresh_adapter_is_drawn_from_its_seed_and_adds_nothing() {
    let config = tiny_config(100);
    let draw = |seed| Adapter::fresh(&lora(&["all-linear"]), &config, seed).expect("fresh").weights;
    let (one, two) = (draw(1), draw(2));
    assert_eq!(one.hash().expect("hash"), draw(1).hash().expect("hash"));
    for (name, tensor) in &one.0 {
        let largest = tensor.abs().max().double_value(&[]);
        if name.contains("lora_B") {
            assert_eq!(largest, 0.0, "{name}");
        } else {
            let bound = 1.0 / (tensor.size()[1] as f64).sqrt();
            assert!(largest <= bound && largest > 0.8 * bound, "{name}: {largest} of {bound}");
            assert!(distance(tensor, &two.0[name]) > 0.1 * bound, "{name}");
        }
    }
}
