//! A model folder's tokenizer, with its special tokens and chat template.

use std::path::{Path, PathBuf};

use joust_core::{Message, Prompt};
use serde_json::Value;

use crate::{
    Error, Result,
    template::{ChatTemplate, token_text},
};

/// Turns prompts into ids and ids into text, exactly as the folder's files say.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    path: PathBuf,
    inner: tokenizers::Tokenizer,
    template: Option<ChatTemplate>,
    eos_ids: Vec<u32>,
    bos_id: Option<u32>,
    pad_id: Option<u32>,
}

fn read_json(path: &Path) -> Result<Value> {
    match std::fs::read_to_string(path) {
        Ok(text) => serde_json::from_str(&text).map_err(|error| Error::Format {
            path: path.into(),
            format: "JSON",
            reason: error.to_string(),
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Value::Null),
        Err(error) => Err(Error::io("read", path)(error)),
    }
}

/// Reads ids written as a number or a list.
fn ids(value: &Value) -> Vec<u32> {
    let one = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    value.as_array().map_or_else(|| one(value).into_iter().collect(), |list| list.iter().filter_map(one).collect())
}

impl Tokenizer {
    /// Opens `tokenizer.json` and reads special tokens from the folder's other files, of today or of before.
    ///
    /// The ids that end an answer are the union of `generation_config.json`, `config.json` and the tokenizer's EOS token.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Tokenizer`] if `tokenizer.json` cannot be read, [`Error::Format`] for a broken JSON file.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join("tokenizer.json");
        let bytes = std::fs::read(&path).map_err(Error::io("read", &path))?;
        let inner = tokenizers::Tokenizer::from_bytes(bytes)
            .map_err(|error| Error::Tokenizer { path: path.clone(), reason: error.to_string() })?;
        let mut config = read_json(&folder.join("tokenizer_config.json"))?;
        let special = read_json(&folder.join("special_tokens_map.json"))?;
        for key in ["bos_token", "eos_token", "pad_token"] {
            if config[key].is_null() && !special[key].is_null() {
                config[key] = special[key].clone();
            }
        }
        let model = read_json(&folder.join("config.json"))?;
        let generation = read_json(&folder.join("generation_config.json"))?;
        let id_of = |key: &str| token_text(&config[key]).and_then(|token| inner.token_to_id(&token));
        let mut eos_ids = ids(&generation["eos_token_id"]);
        eos_ids.extend(ids(&model["eos_token_id"]));
        eos_ids.extend(id_of("eos_token"));
        eos_ids.sort_unstable();
        eos_ids.dedup();
        let (bos_id, pad_id) =
            (id_of("bos_token"), id_of("pad_token").or_else(|| ids(&model["pad_token_id"]).first().copied()));
        Ok(Self { template: ChatTemplate::find(folder, &config), path, inner, eos_ids, bos_id, pad_id })
    }

    /// Returns the ids that end an answer, ascending.
    pub fn eos_ids(&self) -> &[u32] {
        &self.eos_ids
    }

    /// Returns the id that training appends to an answer: the tokenizer's own EOS comes first where there are several.
    pub fn eos_id(&self) -> Option<u32> {
        self.eos_ids.first().copied()
    }

    /// Returns the padding id; it may equal an EOS, so nothing may tell padding by it.
    pub fn pad_id(&self) -> Option<u32> {
        self.pad_id
    }

    /// Returns the text of a token, special ones as they are written.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Checks that every id has a row in the embedding.
    ///
    /// # Errors
    /// [`Error::Embedding`] naming the file and both sizes.
    pub fn check_embedding(&self, rows: usize) -> Result<()> {
        let largest = self.inner.get_vocab(true).values().max().copied().unwrap_or_default() as usize;
        if largest < rows { Ok(()) } else { Err(Error::Embedding { path: self.path.clone(), largest, rows }) }
    }

    /// Encodes a prompt: text with the special tokens that the tokenizer itself adds in front, chat through the template.
    ///
    /// A chat template writes its own special tokens, so none are added to its text: no BOS is doubled.
    ///
    /// # Errors
    /// [`Error::Template`] for chat without a template, [`Error::Tokenizer`] if the text cannot be encoded.
    pub fn encode_prompt(&self, prompt: &Prompt) -> Result<Vec<u32>> {
        match prompt {
            Prompt::Text(text) => {
                let ids = self.encode(text, true)?;
                Ok(self.without_final_eos(ids))
            }
            Prompt::Chat(messages) => self.encode(&self.render(messages, true)?, false),
        }
    }

    /// Encodes an answer to `prompt`, apart from it, with EOS at its end.
    ///
    /// # Errors
    /// As [`Self::encode_prompt`].
    pub fn encode_completion(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = self.encode(text, false)?;
        ids.extend(self.eos_id());
        Ok(ids)
    }

    /// Encodes a prompt with its answer as one sequence, as a reward model reads it: chat through the whole template, text as
    /// prompt, answer and EOS.
    ///
    /// # Errors
    /// As [`Self::encode_prompt`].
    pub fn encode_answered(&self, prompt: &Prompt, answer: &str) -> Result<Vec<u32>> {
        match prompt {
            Prompt::Chat(messages) => {
                let last = Message { role: "assistant".into(), content: answer.to_owned() };
                let all: Vec<Message> = messages.iter().cloned().chain([last]).collect();
                self.encode(&self.render(&all, false)?, false)
            }
            Prompt::Text(_) => {
                let mut ids = self.encode_prompt(prompt)?;
                ids.extend(self.encode_completion(answer)?);
                Ok(ids)
            }
        }
    }

    /// Decodes ids without special tokens: the text that a judge sees.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the decoder fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.inner.decode(ids, true).map_err(|error| self.error(&error.to_string()))
    }

    /// Renders chat messages through the model's template.
    ///
    /// # Errors
    /// [`Error::Template`] if there is none or it fails.
    pub fn render(&self, messages: &[Message], generation: bool) -> Result<String> {
        let missing = || Error::Template {
            path: self.path.with_file_name(""),
            reason:
                "the model has none, but the prompt is a list of messages; use text prompts or add chat_template.jinja"
                    .into(),
        };
        self.template.as_ref().ok_or_else(missing)?.render(messages, generation)
    }

    fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        let encoding = self.inner.encode(text, special).map_err(|error| self.error(&error.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Some tokenizers close every text with EOS; an open prompt must not end there.
    fn without_final_eos(&self, mut ids: Vec<u32>) -> Vec<u32> {
        if ids.len() > 1 && ids.last().is_some_and(|id| self.eos_ids.contains(id) && Some(*id) != self.bos_id) {
            ids.pop();
        }
        ids
    }

    fn error(&self, reason: &str) -> Error {
        Error::Tokenizer { path: self.path.clone(), reason: reason.to_owned() }
    }
}
