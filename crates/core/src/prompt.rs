//! Prompts: plain text or chat messages.

use serde::{Deserialize, Serialize};

/// One chat message.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user`, `assistant` or another role that the model's chat template knows.
    pub role: String,
    /// The text.
    pub content: String,
}

/// What a model is asked to answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Prompt {
    /// Continues the text as it stands.
    Text(String),
    /// Answers the conversation through the model's chat template.
    Chat(Vec<Message>),
}

impl Prompt {
    /// Renders the prompt for a reader or a judge: the text, or `role: content` lines.
    pub fn display(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Chat(messages) => {
                messages.iter().map(|m| format!("{}: {}", m.role, m.content)).collect::<Vec<_>>().join("\n")
            }
        }
    }
}
