//! Rows of Parquet, by the format's own records: only the columns that are asked for are decoded.

use std::{fs::File, sync::Arc};

use parquet::{
    basic::{ConvertedType, Repetition, Type as Physical},
    errors::ParquetError,
    file::reader::{FileReader, SerializedFileReader},
    record::{Field, Row as Record, reader::RowIter},
    schema::types::Type,
};
use serde_json::{Map, Number, Value};

use super::{Problem, Reading, Row};
use crate::{Error, Result};

/// Reads the rows of `columns`, as far as the file has them.
pub(super) fn rows(reading: &mut Reading<'_>, file: File, columns: &[&str]) -> Result<Vec<Row>> {
    let path = reading.path;
    let broken = |reason: String| Error::Format { path: path.into(), format: "Parquet", reason };
    let reader = SerializedFileReader::new(file).map_err(|error| broken(error.to_string()))?;
    let schema = reader.metadata().file_metadata().schema();
    let (read, unread): (Vec<_>, Vec<_>) =
        schema.get_fields().iter().cloned().partition(|field| columns.contains(&field.name()));
    for field in &read {
        readable(field).map_err(|problem| broken(format!("column {}: {problem}", field.name())))?;
    }
    let unread: Arc<Vec<String>> = Arc::new(unread.iter().map(|field| field.name().to_owned()).collect());
    let projection = Type::group_type_builder(schema.name()).with_fields(read).build();
    let projection = projection.map_err(|error| broken(error.to_string()))?;
    let (mut rows, mut line) = (Vec::new(), 0);
    for group in 0..reader.num_row_groups() {
        let group = reader.get_row_group(group).map_err(|error| broken(error.to_string()))?;
        let count = usize::try_from(group.metadata().num_rows()).unwrap_or_default();
        if projection.get_fields().is_empty() {
            let empty = |line| Row { line, values: Map::new(), unread: unread.clone() };
            rows.extend((line + 1..=line + count).map(empty));
            line += count;
            continue;
        }
        let records = RowIter::from_row_group(Some(projection.clone()), &*group);
        for record in records.map_err(|error| broken(undecodable(&error)))? {
            line += 1;
            let record = record.map_err(|error| broken(format!("row {line}: {}", undecodable(&error))))?;
            match object(&record) {
                Ok(values) => rows.push(Row { line, values, unread: unread.clone() }),
                Err(problem) => reading.refuse(line, problem)?,
            }
        }
    }
    Ok(rows)
}

/// Says why a record does not decode; the library's own words print bytes of the text.
fn undecodable(error: &ParquetError) -> String {
    let said = error.to_string();
    match said.contains("as String") {
        true => "a text is not UTF-8".to_owned(),
        false => said.chars().take(200).collect(),
    }
}

/// Checks that the record reader knows a column's type, which it would otherwise answer with a
/// panic.
fn readable(field: &Type) -> std::result::Result<(), String> {
    use ConvertedType as C;
    let converted = field.get_basic_info().converted_type();
    if field.is_primitive() {
        let known = match field.get_physical_type() {
            Physical::INT32 => !matches!(converted, C::INT_64 | C::UINT_64 | C::TIME_MICROS),
            Physical::INT64 => !matches!(converted, C::INT_8 | C::INT_16 | C::INT_32),
            Physical::BYTE_ARRAY => matches!(converted, C::UTF8 | C::ENUM | C::JSON | C::BSON | C::NONE | C::DECIMAL),
            Physical::FIXED_LEN_BYTE_ARRAY => matches!(converted, C::NONE | C::DECIMAL),
            _ => true,
        };
        return if known { Ok(()) } else { Err(format!("values of type {converted} are not read; write text")) };
    }
    let fields = field.get_fields();
    let repeated = || fields.len() == 1 && fields[0].get_basic_info().repetition() == Repetition::REPEATED;
    let inner = |count| (1..=count).contains(&fields[0].get_fields().len());
    let shaped = match converted {
        C::LIST => repeated() && (fields[0].is_primitive() || !fields[0].get_fields().is_empty()),
        C::MAP | C::MAP_KEY_VALUE => repeated() && !fields[0].is_primitive() && inner(2),
        _ => true,
    };
    if !shaped {
        return Err(format!("its {converted} is not of the shape that the format asks for"));
    }
    fields.iter().try_for_each(|field| readable(field))
}

fn object(record: &Record) -> std::result::Result<Map<String, Value>, Problem> {
    record.get_column_iter().map(|(name, field)| Ok((name.clone(), value(name, field)?))).collect()
}

/// Converts a value as JSONL would hold it; dates and times become text.
fn value(column: &str, field: &Field) -> std::result::Result<Value, Problem> {
    Ok(match field {
        Field::Null => Value::Null,
        Field::Bool(value) => Value::Bool(*value),
        Field::Byte(value) => (*value).into(),
        Field::Short(value) => (*value).into(),
        Field::Int(value) => (*value).into(),
        Field::Long(value) => (*value).into(),
        Field::UByte(value) => (*value).into(),
        Field::UShort(value) => (*value).into(),
        Field::UInt(value) => (*value).into(),
        Field::ULong(value) => (*value).into(),
        Field::Float16(value) => float(f64::from(value.to_f32())),
        // By the shortest text: 0.1 stays 0.1.
        Field::Float(value) => float(value.to_string().parse().unwrap_or(f64::NAN)),
        Field::Double(value) => float(*value),
        Field::Decimal(_) => float(field.to_string().parse().unwrap_or(f64::NAN)),
        Field::Str(text) => Value::String(text.clone()),
        Field::Bytes(bytes) => match std::str::from_utf8(bytes.data()) {
            Ok(text) => Value::String(text.to_owned()),
            Err(_) => return Err(format!("column {column} is binary and not UTF-8 text")),
        },
        Field::Group(record) => Value::Object(object(record)?),
        Field::ListInternal(list) => Value::Array(
            list.elements().iter().map(|element| value(column, element)).collect::<std::result::Result<_, _>>()?,
        ),
        Field::MapInternal(map) => {
            let entry = |(key, inner): &(Field, Field)| {
                let key = value(column, key)?;
                let key = key.as_str().map_or_else(|| key.to_string(), str::to_owned);
                Ok((key, value(column, inner)?))
            };
            Value::Object(map.entries().iter().map(entry).collect::<std::result::Result<_, Problem>>()?)
        }
        other => Value::String(other.to_string().trim_matches('"').to_owned()),
    })
}

/// JSON has no number for what is not finite.
fn float(value: f64) -> Value {
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}
