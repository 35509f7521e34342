//! Prompts and answers as ids, as TRL cuts them: both are encoded together, and the answer begins
//! where it parts from its prompt encoded alone.

use joust_core::{Chat, Message, Prompt, Reply};
use tokenizers::Encoding;

use crate::{Result, Tokenizer, template::RenderOptions};

/// A prompt and an answer as ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// The prompt as the answer's sequence begins; at least one id where the sequence has any.
    pub prompt_ids: Vec<u32>,
    /// The answer with its end.
    pub completion_ids: Vec<u32>,
}

/// A prompt with a better and a worse answer as ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnsweredPair {
    /// What both sequences begin with of the prompt; empty where the answers change its first
    /// token, so that there is no pair to train.
    pub prompt_ids: Vec<u32>,
    /// The better answer with its end.
    pub chosen_ids: Vec<u32>,
    /// The worse answer with its end.
    pub rejected_ids: Vec<u32>,
}

/// Counts the ids with which both begin.
pub(crate) fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// Opens the assistant's turn.
const OPENED: RenderOptions = RenderOptions { add_generation_prompt: true, continue_final_message: false };
/// Leaves the assistant's final message open.
const CONTINUED: RenderOptions = RenderOptions { add_generation_prompt: false, continue_final_message: true };

impl Tokenizer {
    /// Encodes a prompt: text with the special tokens that the tokenizer itself adds in front, chat
    /// through the template, which opens the assistant's turn or continues its final message.
    ///
    /// A chat template writes its own special tokens, so none are added to its text: no BOS is
    /// doubled.
    ///
    /// # Errors
    /// [`crate::Error::Template`] for chat without a template, [`crate::Error::Tokenizer`] if the text cannot be encoded.
    pub fn encode_prompt(&self, prompt: &Prompt) -> Result<Vec<u32>> {
        match prompt {
            Prompt::Text(text) => Ok(self.open_ended(&self.encoding(text, true)?)),
            Prompt::Chat(chat) => {
                let options = if chat.is_continued() { CONTINUED } else { OPENED };
                self.rendered(chat, chat.messages.len(), options)
            }
        }
    }

    /// Encodes a prompt with its answer as one sequence, as a reward model reads it: chat through
    /// the full template, text as prompt, answer and EOS.
    ///
    /// # Errors
    /// As [`Self::encode_prompt`].
    pub fn encode_answered(&self, prompt: &Prompt, reply: &Reply) -> Result<Vec<u32>> {
        match (prompt, reply) {
            (Prompt::Text(text), Reply::Text(answer)) => self.closed(text, answer),
            (Prompt::Text(text), Reply::Messages(_)) => {
                self.encode_answered(&Prompt::Chat(vec![Message::new("user", text)].into()), reply)
            }
            (Prompt::Chat(chat), reply) => {
                let chat = chat.answered(reply);
                self.rendered(&chat, chat.messages.len(), RenderOptions::default())
            }
        }
    }

    /// Encodes a prompt and its answer apart.
    ///
    /// # Errors
    /// As [`Self::encode_prompt`].
    pub fn encode_answer(&self, prompt: &Prompt, reply: &Reply) -> Result<Answered> {
        let (before, full) = (self.before(prompt, reply)?, self.encode_answered(prompt, reply)?);
        // Nothing predicts the first id, which therefore counts as the prompt's.
        let (prompt_ids, completion_ids) = cut(&full, common(&before, &full).max(1));
        Ok(Answered { prompt_ids, completion_ids })
    }

    /// Encodes a prompt and two answers, whose sequences begin with the same prompt.
    ///
    /// # Errors
    /// As [`Self::encode_prompt`].
    pub fn encode_pair(&self, prompt: &Prompt, chosen: &Reply, rejected: &Reply) -> Result<AnsweredPair> {
        let full = [self.encode_answered(prompt, chosen)?, self.encode_answered(prompt, rejected)?];
        let first = common(&self.before(prompt, chosen)?, &full[0]);
        let second = common(&self.before(prompt, rejected)?, &full[1]);
        let at = first.min(second).max(common(&full[0], &full[1]).min(1));
        let [(prompt_ids, chosen_ids), (_, rejected_ids)] = full.map(|full| cut(&full, at));
        Ok(AnsweredPair { prompt_ids, chosen_ids, rejected_ids })
    }

    /// Encodes a prompt and its answers, whose sequences begin with the same prompt.
    ///
    /// # Returns
    /// The prompt's ids, empty where the answers change its first token, and those of each answer.
    ///
    /// # Errors
    /// As [`Self::encode_prompt`].
    pub fn encode_answers(&self, prompt: &Prompt, replies: &[Reply]) -> Result<(Vec<u32>, Vec<Vec<u32>>)> {
        let mut full = Vec::with_capacity(replies.len());
        let mut at = usize::MAX;
        for reply in replies {
            let ids = self.encode_answered(prompt, reply)?;
            at = at.min(common(&self.before(prompt, reply)?, &ids).max(1));
            full.push(ids);
        }
        let first = full.first().cloned().unwrap_or_default();
        let at = full.iter().fold(at.min(first.len()), |at, ids| at.min(common(&first, ids)));
        Ok((first[..at].to_vec(), full.into_iter().map(|ids| ids[at..].to_vec()).collect()))
    }

    /// Encodes a plain text as it is learned: with the special tokens that the tokenizer itself
    /// adds in front, and EOS.
    ///
    /// # Errors
    /// As [`Self::encode_prompt`].
    pub(crate) fn encode_text(&self, text: &str) -> Result<Vec<u32>> {
        self.closed("", text)
    }

    /// Encodes what comes before an answer, by itself.
    fn before(&self, prompt: &Prompt, reply: &Reply) -> Result<Vec<u32>> {
        match (prompt, reply) {
            (Prompt::Text(text), Reply::Text(_)) => Ok(self.encoding(text, true)?.get_ids().to_vec()),
            (Prompt::Text(text), Reply::Messages(_)) => {
                let chat: Chat = vec![Message::new("user", text)].into();
                self.rendered(&chat, 1, OPENED)
            }
            (Prompt::Chat(_), Reply::Text(_)) => self.encode_prompt(prompt),
            (Prompt::Chat(chat), Reply::Messages(_)) => self.rendered(chat, chat.messages.len(), OPENED),
        }
    }

    /// Encodes the rendering of a chat's first messages.
    pub(crate) fn rendered(&self, chat: &Chat, messages: usize, options: RenderOptions) -> Result<Vec<u32>> {
        let rendered = self.render(chat, messages, options)?;
        Ok(self.encoding(&rendered.text, false)?.get_ids().to_vec())
    }

    /// Encodes text that ends with an answer, closed by one EOS.
    fn closed(&self, before: &str, answer: &str) -> Result<Vec<u32>> {
        let Some(eos) = &self.eos else {
            return Ok(self.encoding(&format!("{before}{answer}"), true)?.get_ids().to_vec());
        };
        let end = if answer.ends_with(&eos.text) { "" } else { &eos.text };
        let encoding = self.encoding(&format!("{before}{answer}{end}"), true)?;
        let mut ids = encoding.get_ids().to_vec();
        // A tokenizer that closes every text itself would write it twice.
        let doubled = ids.ends_with(&[eos.id, eos.id]) && encoding.get_special_tokens_mask().last() == Some(&1);
        ids.truncate(ids.len() - usize::from(doubled));
        Ok(ids)
    }

    /// Takes away the EOS with which some tokenizers close every text: an open prompt must not end
    /// there. One that the text itself ends with stays.
    fn open_ended(&self, encoding: &Encoding) -> Vec<u32> {
        let mut ids = encoding.get_ids().to_vec();
        let closes = |id: &u32| self.eos_ids.contains(id) && Some(*id) != self.bos_id;
        if ids.len() > 1 && ids.last().is_some_and(closes) && encoding.get_special_tokens_mask().last() == Some(&1) {
            ids.pop();
        }
        ids
    }

    /// Encodes a text; offsets are in bytes.
    pub(crate) fn encoding(&self, text: &str, special: bool) -> Result<Encoding> {
        self.inner.encode(text, special).map_err(|error| self.error(&error.to_string()))
    }
}

/// Cuts a sequence where its answer begins.
fn cut(full: &[u32], at: usize) -> (Vec<u32>, Vec<u32>) {
    let (prompt, completion) = full.split_at(at.min(full.len()));
    (prompt.to_vec(), completion.to_vec())
}
