//! The best of n answers.

use std::cmp::Ordering;

use joust_core::{Judgement, JudgementValue};

/// Returns the candidate with the highest score or mean probability to win, the first of equal ones; `None` where the judgement failed.
pub fn strongest(judgement: &Judgement) -> Option<usize> {
    let strengths = match judgement.value.as_ref()? {
        JudgementValue::Scores(scores) => scores.clone(),
        JudgementValue::Preference(p) => vec![*p, 1.0 - p],
        JudgementValue::Matrix(matrix) => {
            let k = matrix.len().isqrt();
            matrix.chunks(k.max(1)).map(|row| row.iter().sum()).collect()
        }
    };
    let stronger = |&i: &usize, &j: &usize| match strengths[i].total_cmp(&strengths[j]) {
        Ordering::Equal => j.cmp(&i),
        order => order,
    };
    (0..strengths.len()).max_by(stronger)
}

#[cfg(test)]
mod tests {
    use joust_core::{JudgementStatus, Provenance};

    use super::*;

    #[test]
    fn the_strongest_is_found_whatever_was_asked() {
        let judged = |value: Option<JudgementValue>| Judgement {
            status: if value.is_some() { JudgementStatus::Ok } else { JudgementStatus::Refused },
            detail: None,
            value,
            notes: Vec::new(),
            provenance: Provenance {
                judge: "j".into(),
                config_hash: String::new(),
                backend: "test".into(),
                retries: 0,
            },
        };
        let found = |value| strongest(&judged(Some(value)));
        assert_eq!(found(JudgementValue::Scores(vec![0.0, 2.0, 2.0, -1.0])), Some(1));
        assert_eq!(found(JudgementValue::Preference(0.4)), Some(1));
        assert_eq!(found(JudgementValue::Preference(0.5)), Some(0));
        let matrix = vec![0.5, 0.1, 0.6, 0.9, 0.5, 0.8, 0.4, 0.2, 0.5];
        assert_eq!(found(JudgementValue::Matrix(matrix)), Some(1));
        assert_eq!(strongest(&judged(None)), None, "a failed judgement is no choice");
    }
}
