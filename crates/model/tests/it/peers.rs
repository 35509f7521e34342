//! Folders as transformers and PEFT read them: `testdata` holds what they compute (`scripts/fixtures/models.py`).

use std::{collections::BTreeMap, fs, path::Path};

use joust_model::{Head, Llama, open, sequence_ratings};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tch::{Kind, Tensor};

const VOCAB: i64 = 40;
const HIDDEN: i64 = 32;

/// A model folder and the logits of its last position.
#[derive(Deserialize)]
struct Case {
    name: String,
    config: Map<String, Value>,
    stored: String,
    tensors: BTreeMap<String, Value>,
    #[serde(default)]
    logits: Vec<f32>,
    #[serde(default)]
    texts: Vec<Vec<u32>>,
    #[serde(default)]
    single: Vec<Vec<f32>>,
    batch: Option<Vec<Vec<f32>>>,
}

/// An adapter on the folder of `plain`.
#[derive(Deserialize)]
struct AdapterCase {
    name: String,
    config: Map<String, Value>,
    tensors: BTreeMap<String, Vec<i64>>,
    logits: Vec<f32>,
}

/// Computes FNV-1a over the name's bytes, 32 bits.
fn fnv(name: &str) -> u32 {
    name.bytes().fold(0x811C_9DC5, |value, byte| (value ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// Makes the tensor of a name.
fn tensor(name: &str, shape: &[i64]) -> Tensor {
    let turn = f64::from(fnv(name) % 1000);
    let wave = |i: i64| (turn + 0.7 * i as f64 + 0.013 * i as f64 * i as f64).sin();
    let scale = if name.contains("lora_") { 0.1 } else { 0.3 };
    let value = |i: i64| if shape.len() == 1 { 1.0 + 0.1 * wave(i) } else { scale * wave(i) };
    let values: Vec<f32> = (0..shape.iter().product()).map(|i| value(i) as f32).collect();
    Tensor::from_slice(&values).view(shape)
}

fn store(path: &Path, tensors: Vec<(String, Tensor)>) {
    let tensors: Vec<(&str, &Tensor)> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    Tensor::write_safetensors(&tensors, path).expect("written");
}

fn read<T: for<'a> Deserialize<'a>>(name: &str) -> Vec<T> {
    let text = fs::read_to_string(format!("testdata/{name}.json")).expect("a fixture");
    serde_json::from_str(&text).expect("JSON")
}

fn write_model(folder: &Path, case: &Case) {
    let kind = match case.stored.as_str() {
        "F32" => Kind::Float,
        "F16" => Kind::Half,
        _ => Kind::BFloat16,
    };
    let made = |(name, of): (&String, &Value)| {
        let made = match of {
            Value::String(other) => tensor(other, &[VOCAB, HIDDEN]),
            shape => tensor(name, &serde_json::from_value::<Vec<i64>>(shape.clone()).expect("a shape")),
        };
        (name.clone(), made.to_kind(kind))
    };
    fs::create_dir_all(folder).expect("made");
    fs::write(folder.join("config.json"), Value::Object(case.config.clone()).to_string()).expect("written");
    store(&folder.join("model.safetensors"), case.tensors.iter().map(made).collect());
}

fn logits(model: &Llama) -> Vec<f32> {
    let ids: Vec<i64> = (0..24).map(|i| (i * 7) % 35 + 4).collect();
    let hidden = model.hidden(&Tensor::from_slice(&ids).unsqueeze(0)).select(1, 23);
    Vec::try_from(model.head(&hidden).view([-1]).to_kind(Kind::Float)).expect("numbers")
}

fn distance(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn model_folders_give_the_logits_of_transformers() {
    let root = tempfile::tempdir().expect("a folder");
    for case in read::<Case>("configs") {
        let folder = root.path().join(&case.name);
        write_model(&folder, &case);
        let (config, weights, _) = open(&folder).unwrap_or_else(|error| panic!("{}: {error}", case.name));
        assert_eq!(config.head, Head::CausalLm);
        let model = Llama::new(&config, &weights).expect("built");
        let error = distance(&logits(&model), &case.logits);
        assert!(error < 2e-5, "{}: {error}", case.name);
    }
}

#[test]
fn a_folder_written_again_gives_the_same_logits() {
    let root = tempfile::tempdir().expect("a folder");
    for case in read::<Case>("configs").into_iter().filter(|case| case.name.starts_with("tied")) {
        let (folder, again) = (root.path().join(&case.name), root.path().join("again"));
        write_model(&folder, &case);
        let (config, weights, _) = open(&folder).expect("read");
        joust_model::publish_folder(&again, &folder, &config, &weights).expect("written");
        let (config, weights, _) = open(&again).expect("read again");
        let error = distance(&logits(&Llama::new(&config, &weights).expect("built")), &case.logits);
        assert!(error < 2e-5, "{}: {error}", case.name);
    }
}

fn base(root: &Path) {
    let plain = read::<Case>("configs").into_iter().find(|case| case.name == "plain").expect("a base");
    write_model(&root.join("base"), &plain);
}

fn write_adapter(folder: &Path, case: &AdapterCase) {
    fs::create_dir_all(folder).expect("made");
    let mut config = case.config.clone();
    config.insert("base_model_name_or_path".into(), "../base".into());
    fs::write(folder.join("adapter_config.json"), Value::Object(config).to_string()).expect("written");
    let made = |(name, shape): (&String, &Vec<i64>)| (name.clone(), tensor(name, shape));
    store(&folder.join("adapter_model.safetensors"), case.tensors.iter().map(made).collect());
}

#[test]
fn adapters_give_the_logits_of_peft_as_stored_merged_and_written_again() {
    let root = tempfile::tempdir().expect("a folder");
    base(root.path());
    for case in read::<AdapterCase>("adapters") {
        let (folder, again) = (root.path().join(&case.name), root.path().join("again"));
        write_adapter(&folder, &case);
        let read = |folder: &Path| open(folder).unwrap_or_else(|error| panic!("{}: {error}", case.name));
        let (config, weights, found) = read(&folder);
        let found = found.expect("an adapter");
        let plain = Llama::new(&config, &weights).expect("built");
        let merged = Llama::new(&config, &found.adapter.merged(&weights).expect("merged")).expect("built");
        joust_model::publish_adapter(&again, &found.base, &found.adapter).expect("written");
        let second = read(&again).2.expect("an adapter");
        for (how, model) in [
            ("added", plain.with_adapter(&found.adapter, None).expect("adapted")),
            ("merged", merged),
            ("written again", plain.with_adapter(&second.adapter, None).expect("adapted")),
        ] {
            let error = distance(&logits(&model), &case.logits);
            assert!(error < 2e-5, "{} {how}: {error}", case.name);
        }
        assert!(distance(&logits(&plain), &case.logits) > 1e-3, "{} changes something", case.name);
    }
}

#[test]
fn adapters_that_compute_something_else_are_refused_by_key() {
    let root = tempfile::tempdir().expect("a folder");
    base(root.path());
    let mut case = read::<AdapterCase>("adapters").remove(0);
    let plain = case.config.clone();
    for (key, value) in [
        ("init_lora_weights", json!("pissa")),
        ("init_lora_weights", json!("pissa_niter_4")),
        ("init_lora_weights", json!("olora")),
        ("init_lora_weights", json!("corda")),
        ("init_lora_weights", json!("loftq")),
        ("init_lora_weights", json!("lora_ga")),
        ("init_lora_weights", json!("of_tomorrow")),
        ("bias", json!("all")),
        ("use_dora", json!(true)),
        ("use_qalora", json!(true)),
        ("lora_bias", json!(true)),
        ("fan_in_fan_out", json!(true)),
        ("modules_to_save", json!(["lm_head"])),
        ("trainable_token_indices", json!([1, 2])),
        ("target_parameters", json!(["w"])),
        ("layer_replication", json!([[0, 2]])),
        ("layers_pattern", json!("blocks")),
        ("layers_to_transform", json!([-1])),
        ("layers_to_transform", json!([7])),
        ("exclude_modules", json!(["q_proj", "v_proj"])),
        ("exclude_modules", json!("(?!x)")),
        ("rank_pattern", json!({"q_proj": 0})),
        ("rank_pattern", json!({"q_proj": 2, "self_attn.q_proj": 3})),
        ("alpha_pattern", json!({"q_proj": "8"})),
        ("alpha_pattern", json!([8])),
        ("target_modules", json!(r".*\.(?=q)q_proj")),
        ("target_modules", json!(r"nothing")),
        ("target_modules", json!(null)),
        ("use_rslora", json!("yes")),
        ("lora_dropout", json!(1.0)),
        ("lora_alpha", json!("16")),
        ("r", json!(0)),
        ("peft_type", json!("IA3")),
        ("task_type", json!("SEQ_CLS")),
        ("alora_invocation_tokens", json!([1])),
        ("arrow_config", json!({"top_k": 3})),
        ("megatron_config", json!({"a": 1})),
        ("key_of_tomorrow", json!(1)),
    ] {
        case.config = plain.clone();
        case.config.insert(key.into(), value.clone());
        let folder = root.path().join("refused");
        write_adapter(&folder, &case);
        let error = open(&folder).map(|_| ()).expect_err(&format!("{key} = {value}")).to_string();
        // A layer that is not there leaves no module of the targets.
        let by =
            if value == json!([7]) || key == "exclude_modules" && value.is_array() { "target_modules" } else { key };
        assert!(error.contains(&format!("adapter_config.json: {by} is ")), "{key} = {value}: {error}");
    }
}

#[test]
fn configs_that_compute_something_else_are_refused_by_key() {
    let root = tempfile::tempdir().expect("a folder");
    let mut case = read::<Case>("configs").remove(0);
    let plain = case.config.clone();
    let rope = |key: &str, value: Value| json!({"rope_type": "linear", "factor": 2.0, key: value});
    for (key, value, named) in [
        ("model_type", json!("mistral"), "model_type"),
        ("architectures", json!(["MistralForCausalLM"]), "architectures"),
        ("hidden_act", json!("gelu"), "hidden_act"),
        ("attention_bias", json!(true), "attention_bias"),
        ("mlp_bias", json!(true), "mlp_bias"),
        ("attention_dropout", json!(0.1), "attention_dropout"),
        ("quantization_config", json!({"quant_method": "gptq"}), "quantization_config"),
        ("quantization", json!({"bits": 4}), "quantization"),
        ("partial_rotary_factor", json!(0.5), "partial_rotary_factor"),
        ("sliding_window", json!(4096), "sliding_window"),
        ("per_layer_config", json!({"0": {"head_dim": 4}}), "per_layer_config"),
        ("rope_interleaved", json!(true), "rope_interleaved"),
        ("tie_word_embeddings", json!("true"), "tie_word_embeddings"),
        ("head_dim", json!(7), "head_dim"),
        ("dtype", json!("float64"), "dtype"),
        ("rms_norm_eps", json!("1e-5"), "rms_norm_eps"),
        ("rope_theta", json!("10000"), "rope_theta"),
        ("rope_scaling", json!("linear"), "rope_scaling"),
        ("rope_scaling", json!({"type": "dynamic", "factor": 2.0}), "rope_scaling"),
        ("rope_scaling", json!({"type": "yarn", "factor": 2.0}), "rope_scaling"),
        ("rope_scaling", json!({"factor": "2.0", "type": "linear"}), "rope_scaling.factor"),
        ("rope_scaling", rope("partial_rotary_factor", json!(0.5)), "rope_scaling.partial_rotary_factor"),
        ("rope_scaling", rope("attention_factor", json!(0.5)), "rope_scaling.attention_factor"),
        ("rope_scaling", rope("of_tomorrow", json!(1)), "rope_scaling.of_tomorrow"),
        ("rope_parameters", rope("rope_theta", json!("1")), "rope_parameters.rope_theta"),
        ("logits_scaling", json!(8.0), "logits_scaling"),
        ("key_of_tomorrow", json!(true), "key_of_tomorrow"),
    ] {
        case.config = plain.clone();
        case.config.insert(key.into(), value.clone());
        let folder = root.path().join("refused");
        write_model(&folder, &case);
        let error = open(&folder).map(|_| ()).expect_err(&format!("{key} = {value}")).to_string();
        assert!(error.contains(&format!("config.json: {named} is ")), "{key} = {value}: {error}");
    }
}

#[test]
fn tensors_of_other_types_are_refused_by_name() {
    let root = tempfile::tempdir().expect("a folder");
    base(root.path());
    let path = root.path().join("base/model.safetensors");
    let mut tensors = Tensor::read_safetensors(&path).expect("read");
    let (name, tensor) = &mut tensors[3];
    *tensor = tensor.to_kind(Kind::Double);
    let name = name.clone();
    store(&path, tensors);
    let error = open(&root.path().join("base")).map(|_| ()).expect_err("refused").to_string();
    assert!(error.contains(&name) && error.contains("F64, supported are F32, BF16 and F16"), "{error}");
}

#[test]
fn float32_weights_keep_their_bits_whatever_the_config_names() {
    let root = tempfile::tempdir().expect("a folder");
    for (stored, dtype, kind) in
        [("F32", "bfloat16", Kind::Float), ("F16", "bfloat16", Kind::Float), ("BF16", "float32", Kind::BFloat16)]
    {
        let mut case = read::<Case>("configs").remove(0);
        case.stored = stored.into();
        case.config.insert("dtype".into(), dtype.into());
        write_model(root.path(), &case);
        let (_, weights, _) = open(root.path()).expect("read");
        let stored = Tensor::read_safetensors(root.path().join("model.safetensors")).expect("read");
        for (name, tensor) in stored {
            let found = weights.get(&name).expect("there");
            assert_eq!(found.kind(), kind, "{name}");
            assert_eq!(*found, tensor.to_kind(kind), "{name}");
        }
    }
}

#[test]
fn scores_are_those_of_transformers_alone_and_in_batches() {
    let root = tempfile::tempdir().expect("a folder");
    for case in read::<Case>("rewards") {
        let folder = root.path().join(&case.name);
        write_model(&folder, &case);
        let (config, weights, _) = open(&folder).unwrap_or_else(|error| panic!("{}: {error}", case.name));
        let model = Llama::new(&config, &weights).expect("built");
        let rows = |ratings: Tensor| Vec::<Vec<f32>>::try_from(ratings).expect("numbers");
        let together = rows(sequence_ratings(&model, &case.texts));
        for (index, text) in case.texts.iter().enumerate() {
            let alone = rows(sequence_ratings(&model, std::slice::from_ref(text)));
            assert!(distance(&alone[0], &case.single[index]) < 2e-5, "{} {index} alone", case.name);
            assert!(distance(&together[index], &case.single[index]) < 2e-5, "{} {index}", case.name);
            let Some(batch) = &case.batch else { continue };
            assert!(distance(&together[index], &batch[index]) < 2e-5, "{} {index} in a batch", case.name);
        }
    }
}
