//! A model folder's tokenizer, with its special tokens and chat template.

use std::path::{Path, PathBuf};

use joust_core::{Chat, Message};
use serde_json::{Map, Value};
use tokenizers::AddedToken;

use crate::{
    Error, Result,
    template::{ChatTemplate, Conversation, RenderOptions, Rendered},
};

/// Names of special tokens in `tokenizer_config.json`.
const SPECIAL: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// The token that ends an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Eos {
    pub id: u32,
    pub text: String,
}

/// Turns prompts into ids and ids into text, exactly as the folder's files say.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    path: PathBuf,
    pub(crate) inner: tokenizers::Tokenizer,
    template: Option<ChatTemplate>,
    pub(crate) eos_ids: Vec<u32>,
    pub(crate) eos: Option<Eos>,
    pub(crate) bos_id: Option<u32>,
    pad_id: Option<u32>,
}

fn read_json(path: &Path) -> Result<Value> {
    match std::fs::read_to_string(path) {
        Ok(text) => serde_json::from_str(text.trim_start_matches('\u{feff}')).map_err(|error| Error::Format {
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

/// Reads a special token written as text or as an object with `content`.
fn token_text(value: &Value) -> Option<String> {
    value.as_str().or_else(|| value["content"].as_str()).map(str::to_owned)
}

/// Reads an added token written as text or as an object; of an object its own properties count.
fn added_token(value: &Value, special: bool) -> Option<AddedToken> {
    let is = |key: &str, otherwise: bool| value[key].as_bool().unwrap_or(otherwise);
    let special = special || is("special", false);
    let token = AddedToken::from(token_text(value)?, special).lstrip(is("lstrip", false)).rstrip(is("rstrip", false));
    Some(token.single_word(is("single_word", false)).normalized(is("normalized", !special)))
}

/// Lists the added tokens that a configuration names.
fn named_tokens(config: &Value) -> Vec<AddedToken> {
    let single = SPECIAL.iter().filter_map(|key| added_token(&config[*key], true));
    let further =
        ["additional_special_tokens", "extra_special_tokens"].into_iter().flat_map(|key| match &config[key] {
            Value::Array(list) => list.iter().collect(),
            Value::Object(named) => named.values().collect(),
            _ => Vec::new(),
        });
    let decoder = config["added_tokens_decoder"].as_object().into_iter().flat_map(|tokens| tokens.values());
    let decoder = decoder.filter_map(|value| added_token(value, false));
    decoder.chain(single).chain(further.filter_map(|value| added_token(value, true))).collect()
}

impl Tokenizer {
    /// Opens `tokenizer.json` and reads special tokens from the folder's other files, of today or
    /// of before.
    ///
    /// Truncation and padding that a library stored in `tokenizer.json` are those of its last call,
    /// and are ignored. The ids that end an answer are those of `generation_config.json`,
    /// `config.json` and the tokenizer, and what the chat template writes behind the assistant's
    /// message.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Tokenizer`] if `tokenizer.json` cannot be read, [`Error::Format`] for a broken JSON file, [`Error::Template`] for a chat
    /// template that cannot be used.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join("tokenizer.json");
        let bytes = std::fs::read(&path).map_err(Error::io("read", &path))?;
        let failed = |error: tokenizers::Error| Error::Tokenizer { path: path.clone(), reason: error.to_string() };
        let mut inner = tokenizers::Tokenizer::from_bytes(bytes).map_err(failed)?;
        inner.with_truncation(None).map_err(failed)?.with_padding(None);
        let mut config = read_json(&folder.join("tokenizer_config.json"))?;
        let special = read_json(&folder.join("special_tokens_map.json"))?;
        for key in SPECIAL {
            if config[key].is_null() && !special[key].is_null() {
                config[key] = special[key].clone();
            }
        }
        add_named(&mut inner, &config).map_err(failed)?;
        let model = read_json(&folder.join("config.json"))?;
        let generation = read_json(&folder.join("generation_config.json"))?;
        let id_of = |key: &str| token_text(&config[key]).and_then(|token| inner.token_to_id(&token));
        let listed = [ids(&generation["eos_token_id"]), ids(&model["eos_token_id"])].concat();
        let eos_id = id_of("eos_token").or_else(|| listed.first().copied());
        let eos = eos_id.and_then(|id| Some(Eos { id, text: inner.id_to_token(id)? }));
        let mut opened = Self {
            template: ChatTemplate::find(folder, &config)?,
            bos_id: id_of("bos_token"),
            pad_id: id_of("pad_token").or_else(|| ids(&model["pad_token_id"]).first().copied()),
            eos_ids: listed.into_iter().chain(eos_id).collect(),
            path,
            inner,
            eos,
        };
        opened.eos_ids.extend(opened.turn_end());
        opened.eos_ids.sort_unstable();
        opened.eos_ids.dedup();
        Ok(opened)
    }

    /// Returns the ids that end an answer, ascending.
    pub fn eos_ids(&self) -> &[u32] {
        &self.eos_ids
    }

    /// Returns the id that training puts behind an answer of text: the tokenizer's own EOS, or the
    /// first that the model's files list.
    pub fn eos_id(&self) -> Option<u32> {
        self.eos.as_ref().map(|eos| eos.id)
    }

    /// Returns whether an answer ends as the model ends one: with an id that ends it, which a
    /// template may follow with white space.
    pub fn is_ended(&self, ids: &[u32]) -> bool {
        let blank = |id: &u32| self.inner.decode(&[*id], true).is_ok_and(|text| text.trim().is_empty());
        let end = |id: &u32| self.eos_ids.contains(id);
        ids.iter().rev().take_while(|id| end(id) || blank(id)).any(end)
    }

    /// Returns the padding id; it may equal an EOS, so nothing may tell padding by it.
    pub fn pad_id(&self) -> Option<u32> {
        self.pad_id
    }

    /// Returns the text of a token, special ones as they are written.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Checks that every id has a row in the embedding, those that end an answer among them.
    ///
    /// # Errors
    /// [`Error::Embedding`] or [`Error::EosEmbedding`] naming the file and both sizes.
    pub fn check_embedding(&self, rows: usize) -> Result<()> {
        let largest = self.inner.get_vocab(true).values().max().copied().unwrap_or_default() as usize;
        if largest >= rows {
            return Err(Error::Embedding { path: self.path.clone(), largest, rows });
        }
        match self.eos_ids.last() {
            Some(id) if *id as usize >= rows => {
                Err(Error::EosEmbedding { folder: self.path.with_file_name(""), id: *id, rows })
            }
            _ => Ok(()),
        }
    }

    /// Decodes ids without special tokens: the text that a judge sees.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the decoder fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.inner.decode(ids, true).map_err(|error| self.error(&error.to_string()))
    }

    /// Returns the model's chat template.
    ///
    /// # Errors
    /// [`Error::Template`] if there is none.
    pub(crate) fn template(&self) -> Result<&ChatTemplate> {
        let missing = || {
            self.template_error(
                "the model has none, but the prompt is a list of messages; use text prompts or add chat_template.jinja",
            )
        };
        self.template.as_ref().ok_or_else(missing)
    }

    /// Renders the first messages of a chat through the model's template.
    ///
    /// # Errors
    /// [`Error::Template`] if there is none or it fails.
    pub(crate) fn render(&self, chat: &Chat, messages: usize, options: RenderOptions) -> Result<Rendered> {
        // As transformers does: templates handle a missing key, and write a null one out.
        let set = |(key, value): (&String, &Value)| (!value.is_null()).then(|| (key.clone(), value.clone()));
        let own = |message: &Message| Value::Object(message.fields().iter().filter_map(set).collect::<Map<_, _>>());
        let messages: Vec<Value> = chat.messages.iter().take(messages).map(own).collect();
        let conversation = Conversation {
            messages: &messages,
            tools: chat.tools.as_ref(),
            documents: chat.documents.as_ref(),
            kwargs: chat.chat_template_kwargs.as_ref(),
        };
        self.template()?.render(&conversation, options)
    }

    pub(crate) fn error(&self, reason: &str) -> Error {
        Error::Tokenizer { path: self.path.clone(), reason: reason.to_owned() }
    }

    pub(crate) fn template_error(&self, reason: &str) -> Error {
        Error::Template { path: self.path.with_file_name(""), reason: reason.to_owned() }
    }

    /// Finds the special token that the template writes behind the assistant's message; none if it
    /// writes another text there, or fails.
    fn turn_end(&self) -> Option<u32> {
        const ANSWER: &str = "answer";
        self.template.as_ref()?;
        let chat: Chat = vec![Message::new("user", "question"), Message::new("assistant", ANSWER)].into();
        let text = self.render(&chat, 2, RenderOptions::default()).ok()?.text;
        let tail = text[text.rfind(ANSWER)? + ANSWER.len()..].trim_start();
        let first = self.inner.encode_fast(tail, false).ok()?.get_ids().first().copied()?;
        self.inner.get_added_tokens_decoder().get(&first).filter(|token| token.special).map(|_| first)
    }
}

/// Adds the tokens that other files name and `tokenizer.json` holds as plain ones, as
/// `transformers` does on opening.
fn add_named(inner: &mut tokenizers::Tokenizer, config: &Value) -> tokenizers::Result<()> {
    let added = inner.get_added_tokens_decoder();
    let is_added = |token: &AddedToken| added.values().any(|own| own.content == token.content);
    let plain = |token: &AddedToken| !is_added(token) && inner.token_to_id(&token.content).is_some();
    let tokens: Vec<AddedToken> = named_tokens(config).into_iter().filter(plain).collect();
    inner.add_tokens(tokens)?;
    Ok(())
}
