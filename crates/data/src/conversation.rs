//! What is learned of a conversation: the assistant's messages as the template renders them, ends
//! of turns among them.

use std::ops::Range;

use joust_core::Chat;
use tokenizers::Encoding;

use crate::{
    Result, Supervised, Tokenizer,
    encode::common,
    template::{RenderOptions, Rendered},
};

/// Which answers of a conversation are learned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LossOn {
    /// Every message of the assistant.
    #[default]
    All,
    /// The last message of the assistant.
    Last,
}

/// A sequence of ids and which of them are learned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    /// The ids.
    pub ids: Vec<u32>,
    /// One an id: whether it is predicted in training. Nothing predicts the first.
    pub learned: Vec<bool>,
}

impl Sequence {
    fn new(ids: Vec<u32>, learned: impl IntoIterator<Item = Range<usize>>) -> Self {
        let mut mask = vec![false; ids.len()];
        for range in learned {
            mask[range.start.min(ids.len())..range.end.min(ids.len())].fill(true);
        }
        if let Some(first) = mask.first_mut() {
            *first = false;
        }
        Self { ids, learned: mask }
    }
}

impl Tokenizer {
    /// Encodes an example and marks what is learned of it: of text all, of a prompt with its answer
    /// what parts from the prompt encoded alone, of a conversation what its template marks by
    /// generation blocks, else each turn from what opens it to what ends it.
    ///
    /// # Errors
    /// [`crate::Error::Template`] for chat without a template, or where a turn cannot be found in the full rendering;
    /// [`crate::Error::Tokenizer`] if the text cannot be encoded.
    pub fn encode_supervised(&self, example: &Supervised, loss_on: LossOn) -> Result<Sequence> {
        match example {
            Supervised::Text(text) => {
                let ids = self.encode_text(text)?;
                let all = 0..ids.len();
                Ok(Sequence::new(ids, [all]))
            }
            Supervised::Answer { prompt, completion } => {
                let answered = self.encode_answer(prompt, completion)?;
                let start = answered.prompt_ids.len();
                let ids = [answered.prompt_ids, answered.completion_ids].concat();
                let answer = start..ids.len();
                Ok(Sequence::new(ids, [answer]))
            }
            Supervised::Messages(chat) => self.encode_conversation(chat, loss_on),
        }
    }

    fn encode_conversation(&self, chat: &Chat, loss_on: LossOn) -> Result<Sequence> {
        let rendered = self.render(chat, chat.messages.len(), RenderOptions::default())?;
        let encoding = self.encoding(&rendered.text, false)?;
        let answers = (0..chat.messages.len()).filter(|turn| chat.messages[*turn].role() == "assistant");
        let mut turns: Vec<usize> = answers.collect();
        if loss_on == LossOn::Last {
            turns.drain(..turns.len().saturating_sub(1));
        }
        let rendering = Rendering { tokenizer: self, chat, rendered, encoding };
        let learned = match self.template()?.has_generation() {
            true => rendering.marked(&turns, loss_on)?,
            false => rendering.turns(&turns)?,
        };
        Ok(Sequence::new(rendering.encoding.get_ids().to_vec(), learned))
    }
}

/// A full conversation, rendered and encoded.
struct Rendering<'a> {
    tokenizer: &'a Tokenizer,
    chat: &'a Chat,
    rendered: Rendered,
    encoding: Encoding,
}

/// Characters by which the message behind a turn is found: its header and the beginning of its
/// text.
const NEXT_CHARS: usize = 64;

/// Opens the assistant's turn.
const OPENED: RenderOptions = RenderOptions { add_generation_prompt: true, continue_final_message: false };

impl Rendering<'_> {
    /// Returns the ids that the template marks, as `transformers` maps them; of the last answer
    /// alone what lies behind its opening.
    fn marked(&self, turns: &[usize], loss_on: LossOn) -> Result<Vec<Range<usize>>> {
        let first = match (loss_on, turns.first()) {
            (LossOn::Last, Some(turn)) if *turn > 0 => {
                let before = self.tokenizer.render(self.chat, *turn, OPENED)?;
                shared(&before.text, &self.rendered.text)
            }
            _ => 0,
        };
        let ids = self.encoding.get_ids().len();
        let mut found = Vec::new();
        for span in self.rendered.assistant.iter().filter(|span| span.start >= first && !span.is_empty()) {
            // Behind the last id that is there, nothing more is.
            let Some(start) = self.encoding.char_to_token(span.start, 0) else { break };
            let end = self.encoding.char_to_token(span.end - 1, 0).filter(|end| *end > 0);
            found.push(start..end.map_or(ids, |end| end + 1));
        }
        if found.is_empty() {
            return Err(
                self.lost(turns.last().copied().unwrap_or_default(), "its {% generation %} blocks write nothing")
            );
        }
        Ok(found)
    }

    /// Finds each turn between the rendering that opens it and the one that ends with it.
    fn turns(&self, wanted: &[usize]) -> Result<Vec<Range<usize>>> {
        if let [turn] = wanted
            && *turn > 0
            && self.opened(*turn)?.begins(&self.rendered.text)
        {
            return Ok(vec![self.turn(*turn, 0)?.ids]);
        }
        let mut from = 0;
        let mut found = Vec::with_capacity(wanted.len());
        let last = wanted.last().map_or(0, |turn| turn + 1);
        for turn in (0..last).filter(|turn| self.chat.messages[*turn].role() == "assistant") {
            let place = self.turn(turn, from)?;
            from = place.text.end;
            found.push(place.ids);
        }
        Ok(found.split_off(found.len() - wanted.len()))
    }

    fn turn(&self, turn: usize, from: usize) -> Result<Place> {
        if turn == 0 {
            return Err(self.lost(turn, "the assistant speaks first, and nothing opens its turn"));
        }
        let (tokenizer, text) = (self.tokenizer, self.rendered.text.as_str());
        let opened = self.opened(turn)?;
        let start = match opened.begins(text) {
            true => Border { text: shared(&opened.before, text), ids: self.common(&opened.before)? },
            false => self.at(self.opening(turn, from, opened.header())?),
        };
        if turn + 1 == self.chat.messages.len() {
            let end = Border { text: text.len(), ids: self.encoding.get_ids().len() };
            return Ok(Place::between(start, end));
        }
        let until = tokenizer.render(self.chat, turn + 1, RenderOptions::default())?.text;
        let next = tokenizer.render(self.chat, turn + 2, RenderOptions::default())?.text;
        // Up to where the next message begins, the full rendering agrees, or shows the answer's text:
        // what some templates write at the very end alone does not count.
        let end = shared(&until, text);
        let content = self.chat.messages[turn].text();
        let content = content.trim();
        let own = text.get(start.text..end).unwrap_or_default();
        let agrees = end >= shared(&until, &next) || (!content.is_empty() && own.contains(content));
        let end = match agrees && end > start.text {
            true => Border { text: end, ids: self.common(&until[..end])? },
            false => self.at(self.closing(turn, start.text, [&until, &next])?),
        };
        Ok(Place::between(start, end))
    }

    fn opened(&self, turn: usize) -> Result<Opened> {
        let before = self.tokenizer.render(self.chat, turn, OPENED)?.text;
        Ok(Opened { before, closed: self.tokenizer.render(self.chat, turn, RenderOptions::default())?.text })
    }

    /// Counts the ids that a text has in common with the full rendering.
    fn common(&self, text: &str) -> Result<usize> {
        Ok(common(self.tokenizer.encoding(text, false)?.get_ids(), self.encoding.get_ids()))
    }

    /// Finds where an answer's turn is opened, where what comes before it is rendered otherwise by
    /// itself: behind the next header of an answer, which some templates follow with a thought that
    /// the full rendering leaves away.
    fn opening(&self, turn: usize, from: usize, opens: &str) -> Result<usize> {
        let rest = &self.rendered.text[from..];
        let lines = opens.char_indices().filter(|(_, c)| *c == '\n').map(|(at, _)| at + 1);
        let cuts = lines.chain([opens.len()]).filter(|cut| !opens[..*cut].trim().is_empty());
        let found = cuts.filter_map(|cut| Some(from + rest.find(&opens[..cut])? + cut)).next_back();
        found.ok_or_else(|| self.lost(turn, "the messages before it are rendered otherwise once it follows them"))
    }

    /// Finds the end of an answer's turn that is rendered otherwise once messages follow it: where
    /// the next message begins, or behind its text.
    fn closing(&self, turn: usize, start: usize, [until, next]: [&str; 2]) -> Result<usize> {
        let rest = &self.rendered.text[start..];
        if let Some(next) = next.strip_prefix(until).filter(|next| !next.trim().is_empty()) {
            let begins = next.char_indices().nth(NEXT_CHARS).map_or(next, |(at, _)| &next[..at]);
            if let Some(end) = rest.find(begins) {
                return Ok(start + end);
            }
        }
        let content = self.chat.messages[turn].text();
        let content = content.trim();
        let lost = || self.lost(turn, "it is rendered otherwise once messages follow it");
        let tail = until.rfind(content).filter(|_| !content.is_empty()).map(|at| &until[at + content.len()..]);
        let tail = tail.ok_or_else(lost)?;
        let ends = rest.match_indices(content).map(|(at, _)| at + content.len());
        let found = ends.filter(|end| rest[*end..].starts_with(tail)).map(|end| start + end + tail.len()).next();
        found.ok_or_else(lost)
    }

    /// Returns the border at a byte of the text: before the first id that ends behind it.
    fn at(&self, byte: usize) -> Border {
        let ids = self.encoding.get_offsets().iter().take_while(|(_, end)| *end <= byte).count();
        Border { text: byte, ids }
    }

    fn lost(&self, turn: usize, reason: &str) -> crate::Error {
        self.tokenizer.template_error(&format!("message {turn} cannot be found in the conversation: {reason}"))
    }
}

/// What comes before an answer, with its turn opened and without.
struct Opened {
    before: String,
    closed: String,
}

impl Opened {
    /// Returns whether the full rendering begins with it. What opens the turn may differ: some
    /// templates open it with a thought that they leave away later.
    fn begins(&self, full: &str) -> bool {
        full.starts_with(&self.before) || full.starts_with(&self.closed)
    }

    /// Returns what opens the turn.
    fn header(&self) -> &str {
        self.before.strip_prefix(&self.closed).unwrap_or_default()
    }
}

/// A place in the text and in its ids.
struct Border {
    text: usize,
    ids: usize,
}

/// One turn in the text and in its ids.
struct Place {
    text: Range<usize>,
    ids: Range<usize>,
}

impl Place {
    fn between(start: Border, end: Border) -> Self {
        Self { text: start.text..end.text.max(start.text), ids: start.ids..end.ids.max(start.ids) }
    }
}

/// Counts the bytes with which both begin, at a border of characters.
fn shared(a: &str, b: &str) -> usize {
    let same = a.char_indices().zip(b.chars()).take_while(|((_, a), b)| a == b);
    same.last().map_or(0, |((at, last), _)| at + last.len_utf8())
}
