//! The only place where judgements are made: a value with status OK, or a failure without one (R3).

use joust_core::{Judgement, JudgementStatus, JudgementValue, Provenance};

use crate::{Ask, JudgeItem};

/// Why there is no verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) status: JudgementStatus,
    pub(crate) detail: String,
}

/// A value, or why there is none.
pub(crate) type Verdict = Result<JudgementValue, Failure>;

impl Failure {
    pub(crate) fn new(status: JudgementStatus, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into() }
    }
}

/// Joins a verdict with its provenance.
pub(crate) fn judgement(verdict: Verdict, provenance: &Provenance) -> Judgement {
    let provenance = provenance.clone();
    match verdict {
        Ok(value) => {
            Judgement { status: JudgementStatus::Ok, detail: None, value: Some(value), notes: Vec::new(), provenance }
        }
        Err(Failure { status, detail }) => {
            Judgement { status, detail: Some(detail), value: None, notes: Vec::new(), provenance }
        }
    }
}

/// Checks that the item has as many candidates as its question needs.
pub(crate) fn check(item: &JudgeItem) -> Result<(), Failure> {
    let found = item.candidates.len();
    let (fits, expected) = match item.ask {
        Ask::Score => (found >= 1, "at least 1"),
        Ask::Compare => (found == 2, "exactly 2"),
        Ask::Rank => (found >= 2, "at least 2"),
    };
    if fits {
        Ok(())
    } else {
        let detail = format!("{:?} needs {expected} candidates, got {found}", item.ask);
        Err(Failure::new(JudgementStatus::InvalidInput, detail))
    }
}

/// Answers a question from scores: `P(i ≻ j) = σ(scale·(s_i − s_j))`.
pub(crate) fn from_scores(ask: Ask, scores: Vec<f64>, scale: f64) -> Verdict {
    if let Some(score) = scores.iter().find(|score| !score.is_finite()) {
        let detail = format!("score is {score}, expected a finite number");
        return Err(Failure::new(JudgementStatus::ParseFailed, detail));
    }
    match ask {
        Ask::Score => Ok(JudgementValue::Scores(scores)),
        Ask::Compare | Ask::Rank => {
            from_probabilities(ask, scores.len(), |i, j| sigmoid(scale * (scores[i] - scores[j])))
        }
    }
}

/// Answers a comparison or ranking from P(i preferred to j); each unordered pair is asked once, with i < j.
pub(crate) fn from_probabilities(ask: Ask, k: usize, preference: impl Fn(usize, usize) -> f64) -> Verdict {
    let checked = |i: usize, j: usize| {
        let p = preference(i, j);
        let not_one = || Failure::new(JudgementStatus::ParseFailed, format!("preference is {p}, expected 0 to 1"));
        if (0.0..=1.0).contains(&p) { Ok(p) } else { Err(not_one()) }
    };
    if ask == Ask::Compare {
        return Ok(JudgementValue::Preference(checked(0, 1)?));
    }
    let mut matrix = vec![0.5; k * k];
    for i in 0..k {
        for j in i + 1..k {
            let p = checked(i, j)?;
            matrix[i * k + j] = p;
            matrix[j * k + i] = 1.0 - p;
        }
    }
    Ok(JudgementValue::Matrix(matrix))
}

pub(crate) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}
