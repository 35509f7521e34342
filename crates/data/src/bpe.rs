//! Training a byte-level BPE tokenizer for a model that is made from nothing.

use std::path::Path;

use serde_json::json;
use tokenizers::{
    AddedToken, TokenizerBuilder,
    models::bpe::{BPE, BpeTrainerBuilder},
    normalizers::NormalizerWrapper,
    pre_tokenizers::byte_level::ByteLevel,
    processors::PostProcessorWrapper,
};

use crate::{Error, Result};

/// Special tokens of a new tokenizer: padding 0, BOS 1, EOS 2.
const SPECIAL: [&str; 3] = ["<pad>", "<s>", "</s>"];

/// Trains a tokenizer on `texts` and writes `tokenizer.json` and `tokenizer_config.json` into `folder`.
///
/// # Returns
/// The number of ids.
///
/// # Errors
/// [`Error::Tokenizer`] if training fails, [`Error::Io`] if a file cannot be written.
pub fn train_bpe(texts: &[String], vocab_size: usize, folder: &Path) -> Result<usize> {
    let path = folder.join("tokenizer.json");
    let failed = |error: tokenizers::Error| Error::Tokenizer { path: path.clone(), reason: error.to_string() };
    let mut trainer = BpeTrainerBuilder::new()
        .vocab_size(vocab_size)
        .show_progress(false)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(SPECIAL.map(|token| AddedToken::from(token, true)).to_vec())
        .build();
    let bytes = ByteLevel::new(false, true, true);
    let mut tokenizer =
        TokenizerBuilder::<BPE, NormalizerWrapper, ByteLevel, PostProcessorWrapper, ByteLevel>::default()
            .with_model(BPE::default())
            .with_pre_tokenizer(Some(bytes))
            .with_decoder(Some(bytes))
            .build()
            .map_err(failed)?;
    tokenizer.train(&mut trainer, texts.iter()).map_err(failed)?;
    tokenizer.save(&path, true).map_err(failed)?;
    let config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast", "pad_token": SPECIAL[0], "bos_token": SPECIAL[1],
        "eos_token": SPECIAL[2], "clean_up_tokenization_spaces": false,
    });
    let config_path = folder.join("tokenizer_config.json");
    std::fs::write(&config_path, format!("{config:#}\n")).map_err(Error::io("write", &config_path))?;
    Ok(tokenizer.get_vocab_size(true))
}
