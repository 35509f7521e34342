//! One archived completion, as a row and as Arrow columns.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{
        Array, ArrayRef, AsArray, Float64Array, ListArray, ListBuilder, RecordBatch, StringArray, UInt32Array,
        UInt32Builder, UInt64Array,
    },
    datatypes::{DataType, Field, Float64Type, Schema, SchemaRef, UInt32Type, UInt64Type},
    error::ArrowError,
};
use joust_core::{Judgement, Outcome, Rollout};
use serde::{Deserialize, Serialize};

/// Identity of a row in the archive: position in the stream and sample index.
pub(super) type RowKey = (u64, u32);

/// Rows by identity, in the order in which they are written.
pub(super) type Rows = BTreeMap<RowKey, Row>;

/// One completion with its prompt and what was found about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) position: u64,
    pub(super) epoch: u64,
    pub(super) row: u64,
    pub(super) sample_index: u32,
    pub(super) prompt: String,
    pub(super) completion: String,
    pub(super) token_ids: Vec<u32>,
    /// log π(completion) in nats at temperature 1.
    pub(super) logprob_sum: f64,
    pub(super) finish: String,
    pub(super) player: String,
    pub(super) policy_version: u64,
    pub(super) score: Option<f64>,
    pub(super) judgement_status: String,
    /// JSON text; absent when the judgement failed.
    pub(super) judgement_value: Option<String>,
    pub(super) judge: String,
    pub(super) judge_config_hash: String,
    /// What the judge wrote about the completion, if it did.
    pub(super) note: Option<String>,
    pub(super) dropped: Option<String>,
}

/// Returns the text by which serde knows a unit variant.
fn name(variant: &impl Serialize) -> String {
    match serde_json::to_value(variant) {
        Ok(serde_json::Value::String(name)) => name,
        other => format!("{other:?}"),
    }
}

impl Row {
    /// Returns the rows of a judged rollout.
    pub(super) fn of(rollout: &Rollout, judgement: &Judgement, outcome: &Outcome) -> Vec<Self> {
        let value = judgement.value.as_ref().and_then(|value| serde_json::to_string(value).ok());
        let prompt = rollout.task.prompt.display();
        let row = |(at, completion): (usize, &joust_core::Completion)| Self {
            position: rollout.task.position,
            epoch: rollout.task.epoch,
            row: rollout.task.row,
            sample_index: completion.sample_index,
            prompt: prompt.clone(),
            completion: completion.text.clone(),
            token_ids: completion.token_ids.clone(),
            logprob_sum: completion.logprobs.iter().map(|logprob| f64::from(*logprob)).sum(),
            finish: name(&completion.finish),
            player: name(&completion.player),
            policy_version: completion.model.version,
            score: outcome.scores.get(at).copied(),
            judgement_status: name(&judgement.status),
            judgement_value: value.clone(),
            judge: judgement.provenance.judge.clone(),
            judge_config_hash: judgement.provenance.config_hash.clone(),
            note: judgement.notes.get(at).cloned(),
            dropped: outcome.dropped.as_ref().map(name),
        };
        rollout.completions.iter().enumerate().map(row).collect()
    }

    /// Returns the row's identity.
    pub(super) fn key(&self) -> RowKey {
        (self.position, self.sample_index)
    }
}

/// Returns the columns of the archive.
pub(super) fn schema() -> SchemaRef {
    let field = |name: &str, kind: DataType| Field::new(name, kind, false);
    let nullable = |name: &str, kind: DataType| Field::new(name, kind, true);
    Arc::new(Schema::new(vec![
        field("position", DataType::UInt64),
        field("epoch", DataType::UInt64),
        field("row", DataType::UInt64),
        field("sample_index", DataType::UInt32),
        field("prompt", DataType::Utf8),
        field("completion", DataType::Utf8),
        field("token_ids", DataType::List(item())),
        field("logprob_sum", DataType::Float64),
        field("finish", DataType::Utf8),
        field("player", DataType::Utf8),
        field("policy_version", DataType::UInt64),
        nullable("score", DataType::Float64),
        field("judgement_status", DataType::Utf8),
        nullable("judgement_value", DataType::Utf8),
        field("judge", DataType::Utf8),
        field("judge_config_hash", DataType::Utf8),
        nullable("note", DataType::Utf8),
        nullable("dropped", DataType::Utf8),
    ]))
}

fn item() -> Arc<Field> {
    Arc::new(Field::new("item", DataType::UInt32, false))
}

/// Returns `rows` as columns in the order of [`schema`].
pub(super) fn to_batch(rows: &[&Row]) -> Result<RecordBatch, ArrowError> {
    let long = |value: fn(&Row) -> u64| -> ArrayRef {
        Arc::new(UInt64Array::from_iter_values(rows.iter().map(|row| value(row))))
    };
    let text = |value: fn(&Row) -> &str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| value(row))))
    };
    let maybe = |value: fn(&Row) -> Option<&str>| -> ArrayRef {
        Arc::new(rows.iter().map(|row| value(row)).collect::<StringArray>())
    };
    let columns = vec![
        long(|row| row.position),
        long(|row| row.epoch),
        long(|row| row.row),
        Arc::new(UInt32Array::from_iter_values(rows.iter().map(|row| row.sample_index))),
        text(|row| &row.prompt),
        text(|row| &row.completion),
        Arc::new(token_ids(rows)),
        Arc::new(Float64Array::from_iter_values(rows.iter().map(|row| row.logprob_sum))),
        text(|row| &row.finish),
        text(|row| &row.player),
        long(|row| row.policy_version),
        Arc::new(rows.iter().map(|row| row.score).collect::<Float64Array>()),
        text(|row| &row.judgement_status),
        maybe(|row| row.judgement_value.as_deref()),
        text(|row| &row.judge),
        text(|row| &row.judge_config_hash),
        maybe(|row| row.note.as_deref()),
        maybe(|row| row.dropped.as_deref()),
    ];
    RecordBatch::try_new(schema(), columns)
}

fn token_ids(rows: &[&Row]) -> ListArray {
    let mut lists = ListBuilder::new(UInt32Builder::new()).with_field(item());
    for row in rows {
        lists.values().append_slice(&row.token_ids);
        lists.append(true);
    }
    lists.finish()
}

/// Reads rows back from columns that have the types of [`schema`].
///
/// # Errors
/// The name of the first column that is missing or has another type.
pub(super) fn from_batch(batch: &RecordBatch) -> Result<Vec<Row>, String> {
    for field in schema().fields() {
        let found = batch.column_by_name(field.name()).map(|column| column.data_type());
        if found != Some(field.data_type()) {
            return Err(format!("column {} is {found:?}, expected {:?}", field.name(), field.data_type()));
        }
    }
    let columns = Columns(batch);
    Ok((0..batch.num_rows()).map(|at| columns.row(at)).collect())
}

/// Columns whose names and types were checked.
struct Columns<'a>(&'a RecordBatch);

impl Columns<'_> {
    fn column(&self, name: &str) -> &ArrayRef {
        self.0.column_by_name(name).expect("from_batch checked every column of the schema")
    }

    fn long(&self, name: &str, at: usize) -> u64 {
        self.column(name).as_primitive::<UInt64Type>().value(at)
    }

    fn maybe(&self, name: &str, at: usize) -> Option<String> {
        let column = self.column(name).as_string::<i32>();
        column.is_valid(at).then(|| column.value(at).to_owned())
    }

    fn text(&self, name: &str, at: usize) -> String {
        self.column(name).as_string::<i32>().value(at).to_owned()
    }

    fn row(&self, at: usize) -> Row {
        let score = self.column("score").as_primitive::<Float64Type>();
        let tokens = self.column("token_ids").as_list::<i32>().value(at);
        Row {
            position: self.long("position", at),
            epoch: self.long("epoch", at),
            row: self.long("row", at),
            sample_index: self.column("sample_index").as_primitive::<UInt32Type>().value(at),
            prompt: self.text("prompt", at),
            completion: self.text("completion", at),
            token_ids: tokens.as_primitive::<UInt32Type>().values().to_vec(),
            logprob_sum: self.column("logprob_sum").as_primitive::<Float64Type>().value(at),
            finish: self.text("finish", at),
            player: self.text("player", at),
            policy_version: self.long("policy_version", at),
            score: score.is_valid(at).then(|| score.value(at)),
            judgement_status: self.text("judgement_status", at),
            judgement_value: self.maybe("judgement_value", at),
            judge: self.text("judge", at),
            judge_config_hash: self.text("judge_config_hash", at),
            note: self.maybe("note", at),
            dropped: self.maybe("dropped", at),
        }
    }
}
