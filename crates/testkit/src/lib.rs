//! Tiny models and helpers for tests; never part of a release.

pub mod ranks;

use std::path::Path;

use joust_data::train_bpe;
use joust_model::{ModelConfig, Weights, save};
use serde_json::{Value, json};

/// Builds the config of a two-layer decoder with grouped-query attention over `vocab_size` ids; EOS is 2, padding 0.
pub fn tiny_config(vocab_size: i64) -> ModelConfig {
    let raw = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 32, "intermediate_size": 64,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": vocab_size,
        "max_position_embeddings": 128, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": true,
        "dtype": "float32", "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
    });
    let Value::Object(map) = raw else { unreachable!("json! of braces is an object") };
    ModelConfig::parse(Path::new("tiny/config.json"), map).expect("the config is valid")
}

/// Draws weights large enough that the model's next-token distributions differ clearly from one another.
pub fn tiny_weights(config: &ModelConfig, seed: u64) -> Weights {
    let mut weights = Weights::random(config, seed);
    for tensor in weights.0.values_mut().filter(|tensor| tensor.dim() > 1) {
        *tensor = &*tensor * 8.0;
    }
    weights
}

/// Writes a whole tiny model folder: config, weights and a byte-level tokenizer; every run of the same seed gives the same files.
pub fn tiny_folder(folder: &Path, seed: u64) {
    std::fs::create_dir_all(folder).expect("the folder can be made");
    let texts: Vec<String> =
        (0..50).map(|i| format!("the small cat number {i} sat on a red mat and was happy")).collect();
    let vocab = train_bpe(&texts, 300, folder).expect("the tokenizer trains");
    let config = tiny_config(vocab as i64);
    save(folder, &config, &tiny_weights(&config, seed)).expect("the folder can be written");
}
