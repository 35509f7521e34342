//! Judges made of rules about the text: deterministic, without a model, microseconds an answer.

use async_trait::async_trait;
use joust_config::judge::{
    EndsWithRule, LengthRange, LengthUnit, PatternRule, Repetition, Rule as RuleConfig, RuleJudge,
};
use joust_core::{Judgement, Provenance};
use regex::Regex;

use crate::{
    CallContext, Candidate, Error, Judge, JudgeItem, Result,
    verdict::{check, from_scores, judgement},
    words::{Lexicon, Words},
};

/// Scores an answer by the sum over its rules.
pub struct Rule {
    provenance: Provenance,
    checks: Vec<Check>,
    scale: f64,
}

/// One rule, ready to be applied.
enum Check {
    Pattern { regex: Regex, score: f64, max_count: u32 },
    Words { lexicon: Lexicon, max_count: u32 },
    Length(LengthRange),
    Repetition(Repetition),
    EndsWith { regex: Regex, score: f64 },
}

impl Rule {
    /// Compiles the rules.
    ///
    /// # Errors
    /// [`Error::Pattern`], [`Error::Word`] or [`Error::WordTwice`], naming the rule.
    pub fn new(provenance: Provenance, config: &RuleJudge) -> Result<Self> {
        let compile = |(at, rule): (usize, &RuleConfig)| Check::new(rule, &config.name, at + 1);
        let checks = config.rules.iter().enumerate().map(compile).collect::<Result<Vec<_>>>()?;
        Ok(Self { provenance, checks, scale: config.scale })
    }

    /// Writes which rules an answer met and what each gave.
    pub fn note(&self, candidate: &Candidate) -> String {
        let words = Words::of(&candidate.text);
        let met =
            self.checks.iter().map(|check| (check, check.score(candidate, &words))).filter(|(_, score)| *score != 0.0);
        let parts: Vec<String> =
            met.map(|(check, score)| format!("{} ({score:+.1})", check.describe(candidate, &words))).collect();
        if parts.is_empty() { "nothing of note".to_owned() } else { parts.join(", ") }
    }

    /// Computes the score of an answer: the sum over the rules, no unit, higher is better.
    pub fn score(&self, candidate: &Candidate) -> f64 {
        let words = Words::of(&candidate.text);
        self.checks.iter().map(|check| check.score(candidate, &words)).sum()
    }
}

impl Check {
    fn new(rule: &RuleConfig, judge: &str, at: usize) -> Result<Self> {
        let compile = |pattern: &str, end: &str| {
            let invalid = |error: regex::Error| Error::Pattern {
                judge: judge.to_owned(),
                rule: at,
                pattern: pattern.to_owned(),
                reason: error.to_string(),
            };
            // Alone first: "a)(b" is no expression although "(?:a)(b)" is one.
            let alone = Regex::new(pattern).map_err(invalid)?;
            if end.is_empty() { Ok(alone) } else { Regex::new(&format!("(?:{pattern}){end}")).map_err(invalid) }
        };
        match rule {
            RuleConfig::Pattern(PatternRule { pattern, score, max_count }) => {
                Ok(Self::Pattern { regex: compile(pattern, "")?, score: *score, max_count: *max_count })
            }
            RuleConfig::Words(rule) => {
                let lexicon = Lexicon::new(&rule.words, judge, &format!("rule {at}"))?;
                Ok(Self::Words { lexicon, max_count: rule.max_count })
            }
            RuleConfig::Length(rule) => Ok(Self::Length(rule.length.clone())),
            RuleConfig::Repetition(rule) => Ok(Self::Repetition(rule.repetition.clone())),
            RuleConfig::EndsWith(EndsWithRule { ends_with, score }) => {
                Ok(Self::EndsWith { regex: compile(ends_with, r"\z")?, score: *score })
            }
        }
    }

    /// Says what the rule found in an answer, as a phrase whose subject is the answer.
    fn describe(&self, candidate: &Candidate, words: &Words) -> String {
        match self {
            Self::Pattern { regex, .. } => {
                let mut found: Vec<&str> = regex.find_iter(&candidate.text).map(|found| found.as_str()).collect();
                found.dedup();
                format!("says {:?}", found.join(" "))
            }
            Self::Words { lexicon, .. } => format!("says {}", lexicon.found(words).join(" ")),
            Self::Length(range) => match range.unit {
                LengthUnit::Tokens => format!("has {} tokens", candidate.token_count),
                LengthUnit::Words => format!("has {} words", candidate.text.split_whitespace().count()),
            },
            Self::Repetition(_) => "repeats itself".to_owned(),
            Self::EndsWith { .. } => "ends as it should".to_owned(),
        }
    }

    fn score(&self, candidate: &Candidate, words: &Words) -> f64 {
        match self {
            Self::Pattern { regex, score, max_count } => {
                regex.find_iter(&candidate.text).take(*max_count as usize).count() as f64 * score
            }
            Self::Words { lexicon, max_count } => lexicon.sum(words, *max_count),
            Self::Length(range) => {
                let length = match range.unit {
                    LengthUnit::Tokens => candidate.token_count,
                    LengthUnit::Words => candidate.text.split_whitespace().count(),
                };
                if (range.min as usize..=range.max as usize).contains(&length) { range.score } else { 0.0 }
            }
            Self::Repetition(Repetition { ngram, penalty }) => -penalty * words.repeated_share(*ngram as usize),
            Self::EndsWith { regex, score } => {
                if regex.is_match(candidate.text.trim_end()) {
                    *score
                } else {
                    0.0
                }
            }
        }
    }
}

#[async_trait]
impl Judge for Rule {
    fn name(&self) -> &str {
        &self.provenance.judge
    }

    fn config_hash(&self) -> &str {
        &self.provenance.config_hash
    }

    fn writes_notes(&self) -> bool {
        true
    }

    async fn judge(&self, items: &[JudgeItem], call: &CallContext) -> Vec<Judgement> {
        let verdict = |item: &JudgeItem| {
            check(item)?;
            from_scores(item.ask, item.candidates.iter().map(|candidate| self.score(candidate)).collect(), self.scale)
        };
        let notes = |item: &JudgeItem| match call.notes {
            true => item.candidates.iter().map(|candidate| self.note(candidate)).collect(),
            false => Vec::new(),
        };
        let judged = |item| Judgement { notes: notes(item), ..judgement(verdict(item), &self.provenance) };
        items.iter().map(judged).collect()
    }
}
