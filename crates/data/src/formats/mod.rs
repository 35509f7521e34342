//! Forms of rows other than TRL's, which public data sets have.

mod dialogue;
mod oasst;
mod rated;

use joust_core::{Chat, Message, Prompt, Reply};

use crate::{Preference, Result, rows::Reading};

pub(crate) use rated::helpsteer_rating;

/// Which form the rows of a file have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// TRL's: `prompt`, `chosen`, `rejected` as text or messages, or the last two alone.
    #[default]
    Trl,
    /// UltraFeedback: `instruction` and `completions` with scores; the highest `overall_score`
    /// against the lowest.
    UltraFeedback,
    /// Anthropic HH: `chosen` and `rejected` as dialogues of `Human:` and `Assistant:`.
    Hh,
    /// HelpSteer: `prompt`, `response` and ratings; as preferences two rows of one prompt by
    /// `helpfulness`.
    HelpSteer,
    /// OpenAssistant: trees or their messages, ranked among those that answer the same one; the
    /// best against the worst.
    Oasst,
    /// CodeUltraFeedback: `instruction`, `responses` and `annotations`; the highest mean rating
    /// against the lowest.
    CodeUltraFeedback,
}

impl Format {
    /// Says what rows of the form have.
    pub(crate) fn expected(self) -> &'static str {
        match self {
            Self::Trl => "rows with `prompt`, `chosen` and `rejected`",
            Self::UltraFeedback => "rows with `instruction` and `completions` of different scores",
            Self::Hh => "rows with `chosen` and `rejected` dialogues",
            Self::HelpSteer => "neighbouring rows with the same `prompt` and other `response` and `helpfulness`",
            Self::Oasst => "messages whose answers have different ranks",
            Self::CodeUltraFeedback => "rows with `instruction`, `responses` and `annotations` of different ratings",
        }
    }
}

/// Reads preferences of a form that is not TRL's.
pub(crate) fn preferences(reading: &mut Reading<'_>, format: Format) -> Result<Vec<Preference>> {
    match format {
        Format::Trl | Format::Hh => dialogue::preferences(reading),
        Format::UltraFeedback => rated::ultrafeedback(reading),
        Format::CodeUltraFeedback => rated::code_ultrafeedback(reading),
        Format::HelpSteer => rated::helpsteer(reading),
        Format::Oasst => oasst::preferences(reading),
    }
}

/// An answer with a number by which answers are compared.
struct Scored {
    text: String,
    score: f64,
}

/// Contrasts the best answer with the worst; `None` where they are equal.
fn contrast(messages: Vec<Message>, answers: &[Scored]) -> Option<Preference> {
    let best = answers.iter().reduce(|best, next| if next.score > best.score { next } else { best })?;
    let worst = answers.iter().reduce(|worst, next| if next.score < worst.score { next } else { worst })?;
    (best.score > worst.score && best.text != worst.text).then(|| Preference {
        prompt: Prompt::Chat(Chat::from(messages)),
        chosen: Reply::Text(best.text.clone()),
        rejected: Reply::Text(worst.text.clone()),
        margin: Some(best.score - worst.score),
        user: None,
    })
}

#[cfg(test)]
mod tests;
