//! Judgements: a value iff the status is OK.

use joust_core::{Judgement, JudgementStatus, JudgementValue, Provenance};

use crate::{
    Error, Result,
    common::v1 as wire,
    limits::MAX_ANSWERS,
    parse::{all_finite, choice, counted, optional_name, probability, required, text},
};

/// How far `P_ij + P_ji` may be from 1, and `P_ii` from one half.
const COMPLEMENT: f64 = 1e-6;

impl From<Judgement> for wire::Judgement {
    fn from(judgement: Judgement) -> Self {
        let value = |value| match value {
            JudgementValue::Scores(values) => wire::judgement::Value::Scores(wire::Scores { values }),
            JudgementValue::Preference(p) => wire::judgement::Value::Preference(p),
            JudgementValue::Matrix(values) => wire::judgement::Value::Matrix(wire::PreferenceMatrix { values }),
        };
        Self {
            status: wire::JudgementStatus::from(judgement.status).into(),
            detail: judgement.detail,
            value: judgement.value.map(value),
            notes: judgement.notes,
            provenance: Some(judgement.provenance.into()),
        }
    }
}

impl TryFrom<wire::Judgement> for Judgement {
    type Error = Error;
    fn try_from(judgement: wire::Judgement) -> Result<Self> {
        let status = choice::<wire::JudgementStatus, JudgementStatus>("status", judgement.status)?;
        let value = judgement.value.map(JudgementValue::try_from).transpose()?;
        match (status, &value) {
            (JudgementStatus::Ok, None) => return Err(Error::missing("value", "a value, since the status is OK")),
            (JudgementStatus::Ok, Some(_)) | (_, None) => {}
            (_, Some(_)) => return Err(Error::value("value", "set", "none, since the status is not OK")),
        }
        counted("notes", judgement.notes.len(), 0..=MAX_ANSWERS)?;
        let note = |(i, note)| text(&format!("notes[{i}]"), note);
        Ok(Self {
            status,
            detail: judgement.detail.map(|detail| text("detail", detail)).transpose()?,
            value,
            notes: judgement.notes.into_iter().enumerate().map(note).collect::<Result<_>>()?,
            provenance: required("provenance", judgement.provenance)?,
        })
    }
}

impl TryFrom<wire::judgement::Value> for JudgementValue {
    type Error = Error;
    fn try_from(value: wire::judgement::Value) -> Result<Self> {
        match value {
            wire::judgement::Value::Scores(wire::Scores { values }) => {
                counted("scores.values", values.len(), 0..=MAX_ANSWERS)?;
                all_finite("scores.values", &values)?;
                Ok(Self::Scores(values))
            }
            wire::judgement::Value::Preference(p) => Ok(Self::Preference(probability("preference", p)?)),
            wire::judgement::Value::Matrix(wire::PreferenceMatrix { values }) => {
                matrix(&values).map_err(|error| error.at("matrix"))?;
                Ok(Self::Matrix(values))
            }
        }
    }
}

fn matrix(values: &[f64]) -> Result<()> {
    counted("values", values.len(), 0..=MAX_ANSWERS * MAX_ANSWERS)?;
    let k = values.len().isqrt();
    if k * k != values.len() {
        return Err(Error::value("values", format!("{} entries", values.len()), "K x K entries"));
    }
    for i in 0..k {
        for j in 0..=i {
            let field = |row: usize, column: usize| format!("values[{}]", row * k + column);
            let p = probability(&field(i, j), values[i * k + j])?;
            let q = probability(&field(j, i), values[j * k + i])?;
            if (p + q - 1.0).abs() > COMPLEMENT {
                return Err(Error::value(field(i, j), p, format!("1 - {q}, what row {j} says of column {i}")));
            }
        }
    }
    Ok(())
}

impl From<Provenance> for wire::Provenance {
    fn from(provenance: Provenance) -> Self {
        Self {
            judge: provenance.judge,
            config_hash: provenance.config_hash,
            backend: provenance.backend,
            retries: provenance.retries,
        }
    }
}

impl TryFrom<wire::Provenance> for Provenance {
    type Error = Error;
    fn try_from(provenance: wire::Provenance) -> Result<Self> {
        Ok(Self {
            judge: optional_name("judge", provenance.judge)?,
            config_hash: optional_name("config_hash", provenance.config_hash)?,
            backend: optional_name("backend", provenance.backend)?,
            retries: provenance.retries,
        })
    }
}
