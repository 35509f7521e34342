//! The keys of `adapter_config.json`, and what becomes of each.

use crate::keys::{
    Key,
    Rule::{Ignored, Only, Read},
};

/// The fields of PEFT's `LoraConfig`, and those that older releases wrote.
pub(crate) const ADAPTER: &[Key] = &[
    ("peft_type", Read),
    ("task_type", Only(&["\"CAUSAL_LM\""])),
    ("base_model_name_or_path", Read),
    ("r", Read),
    ("lora_alpha", Read),
    ("lora_dropout", Read),
    ("target_modules", Read),
    ("exclude_modules", Read),
    ("layers_to_transform", Read),
    ("layers_pattern", Read),
    ("rank_pattern", Read),
    ("alpha_pattern", Read),
    ("use_rslora", Read),
    // Other inits change the base when the adapter is loaded: PiSSA, OLoRA, CorDA, LoftQ and LoRA-GA.
    ("init_lora_weights", Only(&["true", "false", "\"gaussian\"", "\"orthogonal\"", "\"eva\""])),
    ("bias", Only(&["\"none\""])),
    ("fan_in_fan_out", Only(&["false"])),
    ("modules_to_save", Only(&[])),
    ("trainable_token_indices", Only(&[])),
    ("target_parameters", Only(&[])),
    ("layer_replication", Only(&[])),
    ("lora_bias", Only(&["false"])),
    ("ensure_weight_tying", Only(&["false"])),
    ("megatron_config", Only(&[])),
    ("loftq_config", Only(&[])),
    ("corda_config", Only(&[])),
    ("lora_ga_config", Only(&[])),
    ("use_dora", Only(&["false"])),
    ("velora_config", Only(&[])),
    ("alora_invocation_tokens", Only(&[])),
    ("use_qalora", Only(&["false"])),
    ("monteclora_config", Only(&[])),
    ("use_bdlora", Only(&["false"])),
    ("arrow_config", Only(&[])),
    ("kasa_config", Only(&[])),
    ("enable_lora", Only(&[])),
    // How the adapter was begun; what came of it stands in its tensors and patterns.
    ("eva_config", Ignored),
    // Read beside `use_qalora` and `megatron_config` only.
    ("qalora_group_size", Ignored),
    ("megatron_core", Ignored),
    ("runtime_config", Ignored),
    ("auto_mapping", Ignored),
    ("inference_mode", Ignored),
    ("merge_weights", Ignored),
    ("peft_version", Ignored),
    ("revision", Ignored),
];

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{Map, Value};

    use super::*;
    use crate::keys::check;

    const FIXTURE: &str = include_str!("../../testdata/keys.json");

    #[test]
    fn every_field_of_peft_has_a_rule_and_its_default_passes() {
        let fixture: Value = serde_json::from_str(FIXTURE).expect("JSON");
        let fields: Map<String, Value> = fixture["adapter"].as_object().expect("an object").clone();
        assert!(fields.len() > 35, "{}", fields.len());
        for key in fields.keys() {
            assert_eq!(ADAPTER.iter().filter(|(name, _)| name == key).count(), 1, "{key}");
        }
        check(Path::new("adapter_config.json"), &fields, &[ADAPTER]).expect("the defaults pass");
    }
}
