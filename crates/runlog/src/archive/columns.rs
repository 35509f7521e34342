//! Rows of the archive as columns of a Parquet file, and back.

use std::{fs::File, path::Path, sync::Arc};

use bytes::Bytes;
use parquet::{
    basic::{Compression, ZstdLevel},
    column::writer::ColumnWriter,
    data_type::ByteArray,
    errors::{ParquetError, Result},
    file::{
        properties::WriterProperties,
        reader::{FileReader, SerializedFileReader},
        writer::SerializedFileWriter,
    },
    record::{Field, Row as Record},
    schema::{parser::parse_message_type, types::Type},
};

use super::row::Row;

/// The columns, in the order of [`columns`].
const SCHEMA: &str = "message archive {
    required int64 position (INTEGER(64, false));
    required int64 epoch (INTEGER(64, false));
    required int64 row (INTEGER(64, false));
    required int32 sample_index (INTEGER(32, false));
    required binary prompt (STRING);
    required binary completion (STRING);
    required group prompt_ids (LIST) { repeated group list { required int32 element (INTEGER(32, false)); } }
    required group token_ids (LIST) { repeated group list { required int32 element (INTEGER(32, false)); } }
    required group logprobs (LIST) { repeated group list { required float element; } }
    required double logprob_sum;
    required binary finish (STRING);
    required binary player (STRING);
    required int64 policy_version (INTEGER(64, false));
    optional double score;
    required binary judgement_status (STRING);
    optional binary judgement_value (STRING);
    required binary judge (STRING);
    required binary judge_config_hash (STRING);
    optional binary note (STRING);
    optional binary dropped (STRING);
}";

fn schema() -> Result<Type> {
    parse_message_type(SCHEMA)
}

/// Values of one column with their definition and repetition levels, where it has any.
enum Column {
    Long(Vec<i64>),
    Int(Vec<i32>),
    Double(Vec<f64>, Option<Vec<i16>>),
    Text(Vec<ByteArray>, Option<Vec<i16>>),
    Ints(Vec<i32>, Levels),
    Floats(Vec<f32>, Levels),
}

/// Levels of a list without nulls: where each row begins, and which rows are empty.
#[derive(Default)]
struct Levels {
    definition: Vec<i16>,
    repetition: Vec<i16>,
}

impl Levels {
    fn push(&mut self, items: usize) {
        self.repetition.push(0);
        self.definition.push(i16::from(items > 0));
        let rest = items.saturating_sub(1);
        self.repetition.extend(std::iter::repeat_n(1, rest));
        self.definition.extend(std::iter::repeat_n(1, rest));
    }
}

impl Column {
    // Parquet stores unsigned integers in the bits of signed ones.
    fn long(rows: &[&Row], value: fn(&Row) -> u64) -> Self {
        Self::Long(rows.iter().map(|row| value(row).cast_signed()).collect())
    }

    fn int(rows: &[&Row], value: fn(&Row) -> u32) -> Self {
        Self::Int(rows.iter().map(|row| value(row).cast_signed()).collect())
    }

    fn double(rows: &[&Row], value: fn(&Row) -> f64) -> Self {
        Self::Double(rows.iter().map(|row| value(row)).collect(), None)
    }

    fn optional_double(rows: &[&Row], value: fn(&Row) -> Option<f64>) -> Self {
        let values: Vec<_> = rows.iter().map(|row| value(row)).collect();
        let levels = values.iter().map(|value| i16::from(value.is_some())).collect();
        Self::Double(values.into_iter().flatten().collect(), Some(levels))
    }

    fn text(rows: &[&Row], value: fn(&Row) -> &str) -> Self {
        Self::Text(rows.iter().map(|row| ByteArray::from(value(row))).collect(), None)
    }

    fn optional_text(rows: &[&Row], value: fn(&Row) -> Option<&str>) -> Self {
        let values: Vec<_> = rows.iter().map(|row| value(row)).collect();
        let levels = values.iter().map(|value| i16::from(value.is_some())).collect();
        Self::Text(values.into_iter().flatten().map(ByteArray::from).collect(), Some(levels))
    }

    fn ints(rows: &[&Row], value: fn(&Row) -> &[u32]) -> Self {
        let (mut items, mut levels) = (Vec::new(), Levels::default());
        for list in rows.iter().map(|row| value(row)) {
            items.extend(list.iter().map(|item| item.cast_signed()));
            levels.push(list.len());
        }
        Self::Ints(items, levels)
    }

    fn floats(rows: &[&Row], value: fn(&Row) -> &[f32]) -> Self {
        let (mut items, mut levels) = (Vec::new(), Levels::default());
        for list in rows.iter().map(|row| value(row)) {
            items.extend(list);
            levels.push(list.len());
        }
        Self::Floats(items, levels)
    }

    fn write(&self, writer: &mut ColumnWriter<'_>) -> Result<()> {
        match (self, writer) {
            (Self::Long(values), ColumnWriter::Int64ColumnWriter(writer)) => writer.write_batch(values, None, None)?,
            (Self::Int(values), ColumnWriter::Int32ColumnWriter(writer)) => writer.write_batch(values, None, None)?,
            (Self::Double(values, levels), ColumnWriter::DoubleColumnWriter(writer)) => {
                writer.write_batch(values, levels.as_deref(), None)?
            }
            (Self::Text(values, levels), ColumnWriter::ByteArrayColumnWriter(writer)) => {
                writer.write_batch(values, levels.as_deref(), None)?
            }
            (Self::Ints(values, levels), ColumnWriter::Int32ColumnWriter(writer)) => {
                writer.write_batch(values, Some(&levels.definition), Some(&levels.repetition))?
            }
            (Self::Floats(values, levels), ColumnWriter::FloatColumnWriter(writer)) => {
                writer.write_batch(values, Some(&levels.definition), Some(&levels.repetition))?
            }
            _ => return Err(refused("the columns do not follow the schema")),
        };
        Ok(())
    }
}

/// Returns `rows` as columns in the order of [`SCHEMA`].
fn columns(rows: &[&Row]) -> Vec<Column> {
    vec![
        Column::long(rows, |row| row.position),
        Column::long(rows, |row| row.epoch),
        Column::long(rows, |row| row.row),
        Column::int(rows, |row| row.sample_index),
        Column::text(rows, |row| &row.prompt),
        Column::text(rows, |row| &row.completion),
        Column::ints(rows, |row| &row.prompt_ids),
        Column::ints(rows, |row| &row.token_ids),
        Column::floats(rows, |row| &row.logprobs),
        Column::double(rows, |row| row.logprob_sum),
        Column::text(rows, |row| &row.finish),
        Column::text(rows, |row| &row.player),
        Column::long(rows, |row| row.policy_version),
        Column::optional_double(rows, |row| row.score),
        Column::text(rows, |row| &row.judgement_status),
        Column::optional_text(rows, |row| row.judgement_value.as_deref()),
        Column::text(rows, |row| &row.judge),
        Column::text(rows, |row| &row.judge_config_hash),
        Column::optional_text(rows, |row| row.note.as_deref()),
        Column::optional_text(rows, |row| row.dropped.as_deref()),
    ]
}

/// Writes rows as a Parquet file of one row group.
///
/// # Errors
/// What the file system or the encoder refuses.
pub(super) fn write(file: &mut File, rows: &[&Row]) -> Result<()> {
    let compression = Compression::ZSTD(ZstdLevel::default());
    let properties = WriterProperties::builder().set_compression(compression).build();
    let mut writer = SerializedFileWriter::new(file, Arc::new(schema()?), Arc::new(properties))?;
    let mut group = writer.next_row_group()?;
    for column in columns(rows) {
        let mut part = group.next_column()?.ok_or_else(|| refused("more columns than the schema has"))?;
        column.write(part.untyped())?;
        part.close()?;
    }
    group.close()?;
    writer.close().map(drop)
}

/// Reads the rows of a file that [`write`] wrote.
///
/// # Errors
/// A file that is no Parquet, or has other columns.
pub(super) fn read(path: &Path, bytes: Vec<u8>) -> Result<Vec<Row>> {
    let reader = SerializedFileReader::new(Bytes::from(bytes))?;
    let (found, expected) = (reader.metadata().file_metadata().schema(), schema()?);
    if found.get_fields() != expected.get_fields() {
        return Err(refused(&format!("the columns of {} are not those of an archive", path.display())));
    }
    reader.get_row_iter(None)?.map(|record| row(&record?)).collect()
}

fn refused(reason: &str) -> ParquetError {
    ParquetError::General(reason.to_owned())
}

/// Reads one row whose columns are those of [`SCHEMA`].
fn row(record: &Record) -> Result<Row> {
    let fields: Vec<&Field> = record.get_column_iter().map(|(_, field)| field).collect();
    let mut fields = fields.into_iter();
    let mut next = || fields.next().unwrap_or(&Field::Null);
    Ok(Row {
        position: long(next())?,
        epoch: long(next())?,
        row: long(next())?,
        sample_index: int(next())?,
        prompt: text(next())?,
        completion: text(next())?,
        prompt_ids: list(next(), int)?,
        token_ids: list(next(), int)?,
        logprobs: list(next(), float)?,
        logprob_sum: double(next())?,
        finish: text(next())?,
        player: text(next())?,
        policy_version: long(next())?,
        score: optional(next(), double)?,
        judgement_status: text(next())?,
        judgement_value: optional(next(), text)?,
        judge: text(next())?,
        judge_config_hash: text(next())?,
        note: optional(next(), text)?,
        dropped: optional(next(), text)?,
    })
}

fn long(field: &Field) -> Result<u64> {
    if let Field::ULong(value) = field { Ok(*value) } else { Err(refused("expected a 64-bit number")) }
}

fn int(field: &Field) -> Result<u32> {
    if let Field::UInt(value) = field { Ok(*value) } else { Err(refused("expected a 32-bit number")) }
}

fn float(field: &Field) -> Result<f32> {
    if let Field::Float(value) = field { Ok(*value) } else { Err(refused("expected a float")) }
}

fn double(field: &Field) -> Result<f64> {
    if let Field::Double(value) = field { Ok(*value) } else { Err(refused("expected a double")) }
}

fn text(field: &Field) -> Result<String> {
    if let Field::Str(value) = field { Ok(value.clone()) } else { Err(refused("expected a text")) }
}

fn optional<T>(field: &Field, read: fn(&Field) -> Result<T>) -> Result<Option<T>> {
    if matches!(field, Field::Null) { Ok(None) } else { read(field).map(Some) }
}

fn list<T>(field: &Field, read: fn(&Field) -> Result<T>) -> Result<Vec<T>> {
    match field {
        Field::ListInternal(list) => list.elements().iter().map(read).collect(),
        _ => Err(refused("expected a list")),
    }
}
