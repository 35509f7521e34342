//! A judge that is a preference matrix over kinds of answers: exact, and as intransitive as the matrix.

use async_trait::async_trait;
use joust_config::judge::MatrixJudge;
use joust_core::{Judgement, JudgementStatus, Provenance};
use regex::Regex;

use crate::{
    Ask, CallContext, Candidate, Error, Judge, JudgeItem, Result,
    verdict::{Failure, Verdict, check, from_probabilities, judgement},
};

/// Tells the kind of each answer and looks the preference up.
pub struct Matrix {
    provenance: Provenance,
    patterns: Vec<Regex>,
    preference: Vec<Vec<f64>>,
    unmatched: f64,
}

impl Matrix {
    /// Compiles the patterns of a configuration whose matrix was checked.
    ///
    /// # Errors
    /// [`Error::Pattern`] for a pattern that is no regular expression.
    pub fn new(provenance: Provenance, config: &MatrixJudge) -> Result<Self> {
        let compile = |(at, pattern): (usize, &String)| {
            Regex::new(pattern).map_err(|error| Error::Pattern {
                judge: config.name.clone(),
                rule: at + 1,
                pattern: pattern.clone(),
                reason: error.to_string(),
            })
        };
        let patterns = config.patterns.iter().enumerate().map(compile).collect::<Result<_>>()?;
        Ok(Self { provenance, patterns, preference: config.preference.clone(), unmatched: config.unmatched })
    }

    fn kind(&self, candidate: &Candidate) -> Option<usize> {
        self.patterns.iter().position(|pattern| pattern.is_match(&candidate.text))
    }

    fn verdict(&self, item: &JudgeItem) -> Verdict {
        check(item)?;
        if item.ask == Ask::Score {
            let detail = "a preference matrix has no scores; ask for compare or rank";
            return Err(Failure::new(JudgementStatus::InvalidInput, detail));
        }
        let kinds: Vec<Option<usize>> = item.candidates.iter().map(|candidate| self.kind(candidate)).collect();
        from_probabilities(item.ask, kinds.len(), |i, j| match (kinds[i], kinds[j]) {
            (Some(i), Some(j)) => self.preference[i][j],
            (None, Some(_)) => self.unmatched,
            (Some(_), None) => 1.0 - self.unmatched,
            (None, None) => 0.5,
        })
    }
}

#[async_trait]
impl Judge for Matrix {
    fn name(&self) -> &str {
        &self.provenance.judge
    }

    fn config_hash(&self) -> &str {
        &self.provenance.config_hash
    }

    fn asks(&self) -> &'static [Ask] {
        &[Ask::Compare, Ask::Rank]
    }

    async fn judge(&self, items: &[JudgeItem], _call: &CallContext) -> Vec<Judgement> {
        items.iter().map(|item| judgement(self.verdict(item), &self.provenance)).collect()
    }
}
