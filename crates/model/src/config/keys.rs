//! The keys of `config.json`, and what becomes of each.

use crate::keys::{
    Key,
    Rule::{Ignored, Only, Read},
};

/// Keys that the parser reads, and those that `transformers` reads of which one value is supported.
pub(crate) const MODEL: &[Key] = &[
    ("architectures", Read),
    ("model_type", Only(&["\"llama\""])),
    ("vocab_size", Read),
    ("hidden_size", Read),
    ("intermediate_size", Read),
    ("num_hidden_layers", Read),
    ("num_attention_heads", Read),
    ("num_key_value_heads", Read),
    ("head_dim", Read),
    ("max_position_embeddings", Read),
    ("rms_norm_eps", Read),
    ("rope_theta", Read),
    ("rope_scaling", Read),
    ("rope_parameters", Read),
    ("tie_word_embeddings", Read),
    ("dtype", Read),
    ("torch_dtype", Read),
    ("id2label", Read),
    ("num_labels", Read),
    ("pad_token_id", Read),
    ("hidden_act", Only(&["\"silu\"", "\"swish\""])),
    ("attention_bias", Only(&["false"])),
    ("mlp_bias", Only(&["false"])),
    // Dropped in training only, where this crate drops nothing.
    ("attention_dropout", Only(&["0"])),
    ("is_encoder_decoder", Only(&["false"])),
    ("add_cross_attention", Only(&["false"])),
    ("partial_rotary_factor", Only(&["1"])),
    ("original_max_position_embeddings", Only(&[])),
    ("quantization_config", Only(&[])),
    ("per_layer_config", Only(&[])),
    ("pruned_heads", Only(&[])),
    // nanotron's other order of a head's halves; `transformers` reads folders as if it were false.
    ("rope_interleaved", Only(&["false"])),
];

/// Keys of training, generation and bookkeeping: `transformers` computes the same logits whatever they are.
pub(crate) const BOOKKEEPING: &[Key] = &[
    ("_attn_implementation", Ignored),
    ("_attn_implementation_autoset", Ignored),
    ("_commit_hash", Ignored),
    ("_experts_implementation", Ignored),
    ("_flash_attn_2_enabled", Ignored),
    ("_name_or_path", Ignored),
    ("attn_implementation", Ignored),
    // Names code beside the weights, which is not run: the class of `model_type` is `transformers`' own.
    ("auto_map", Ignored),
    ("bos_token_id", Ignored),
    ("cache_implementation", Ignored),
    // `transformers` cuts the MLP's input into chunks; Llama's layers do not read it.
    ("chunk_size_feed_forward", Ignored),
    ("eos_token_id", Ignored),
    ("experts_implementation", Ignored),
    ("finetuning_task", Ignored),
    ("initializer_range", Ignored),
    ("is_decoder", Ignored),
    ("is_llama_config", Ignored),
    ("label2id", Ignored),
    ("max_sequence_length", Ignored),
    ("model_max_length", Ignored),
    ("name_or_path", Ignored),
    ("output_attentions", Ignored),
    ("output_hidden_states", Ignored),
    // Cuts products of matrices into parts; their sum is the same.
    ("pretraining_tp", Ignored),
    ("problem_type", Ignored),
    ("return_dict", Ignored),
    ("sep_token_id", Ignored),
    ("task_specific_params", Ignored),
    ("tie_encoder_decoder", Ignored),
    ("tokenizer_class", Ignored),
    ("tokenizer_model_max_length", Ignored),
    ("tokenizer_padding_side", Ignored),
    ("torchscript", Ignored),
    ("transformers.js_config", Ignored),
    ("transformers_version", Ignored),
    ("unsloth_fixed", Ignored),
    ("unsloth_version", Ignored),
    ("use_bfloat16", Ignored),
    ("use_cache", Ignored),
];

/// Parameters of generation, which older writers stored here; the run file says how to sample.
pub(crate) const GENERATION: &[Key] = &[
    ("assistant_confidence_threshold", Ignored),
    ("assistant_lookbehind", Ignored),
    ("bad_words_ids", Ignored),
    ("begin_suppress_tokens", Ignored),
    ("decoder_start_token_id", Ignored),
    ("diversity_penalty", Ignored),
    ("do_sample", Ignored),
    ("early_stopping", Ignored),
    ("encoder_no_repeat_ngram_size", Ignored),
    ("encoder_repetition_penalty", Ignored),
    ("epsilon_cutoff", Ignored),
    ("eta_cutoff", Ignored),
    ("exponential_decay_length_penalty", Ignored),
    ("forced_bos_token_id", Ignored),
    ("forced_eos_token_id", Ignored),
    ("length_penalty", Ignored),
    ("max_length", Ignored),
    ("max_new_tokens", Ignored),
    ("min_length", Ignored),
    ("no_repeat_ngram_size", Ignored),
    ("num_assistant_tokens", Ignored),
    ("num_assistant_tokens_schedule", Ignored),
    ("num_beam_groups", Ignored),
    ("num_beams", Ignored),
    ("num_return_sequences", Ignored),
    ("output_scores", Ignored),
    ("prefix", Ignored),
    ("remove_invalid_values", Ignored),
    ("repetition_penalty", Ignored),
    ("return_dict_in_generate", Ignored),
    ("suppress_tokens", Ignored),
    ("target_lookbehind", Ignored),
    ("temperature", Ignored),
    ("top_k", Ignored),
    ("top_p", Ignored),
    ("typical_p", Ignored),
];

/// Keys of `rope_scaling` and `rope_parameters`.
pub(crate) const ROPE: &[Key] = &[
    ("rope_type", Read),
    ("type", Read),
    ("rope_theta", Read),
    ("factor", Read),
    ("low_freq_factor", Read),
    ("high_freq_factor", Read),
    ("original_max_position_embeddings", Read),
    // Scales the cosines of other rope types.
    ("attention_factor", Only(&["1"])),
    ("partial_rotary_factor", Only(&["1"])),
];

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{Map, Value};

    use super::*;
    use crate::keys::check;

    const FIXTURE: &str = include_str!("../../testdata/keys.json");

    #[test]
    fn every_key_that_transformers_reads_has_a_rule_and_its_default_passes() {
        let fixture: Value = serde_json::from_str(FIXTURE).expect("JSON");
        let fields: Map<String, Value> = fixture["config"].as_object().expect("an object").clone();
        assert!(fields.len() > 30, "{}", fields.len());
        let generation = fixture["generation"].as_array().expect("a list").iter().filter_map(Value::as_str);
        for key in fields.keys().map(String::as_str).chain(generation) {
            let rules = [MODEL, BOOKKEEPING, GENERATION].into_iter().flatten().filter(|(name, _)| *name == key);
            assert_eq!(rules.count(), 1, "{key}");
        }
        check(Path::new("config.json"), &fields, &[MODEL, BOOKKEEPING, GENERATION]).expect("the defaults pass");
    }
}
