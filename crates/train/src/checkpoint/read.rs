//! Rows of tensors out of the shards of a checkpoint, whatever the number of ranks that wrote them.

use std::{collections::BTreeMap, fs::File, io::Read, ops::Range, os::unix::fs::FileExt, path::Path};

use safetensors::tensor::{Dtype, Metadata};
use tch::{Kind, Tensor};

/// Where some rows of a tensor lie.
#[derive(Debug)]
struct Place {
    rows: Range<i64>,
    /// Shape of a row.
    row: Vec<i64>,
    file: usize,
    offset: u64,
}

/// The tensors of a checkpoint by name, each in one or more places.
#[derive(Debug)]
pub(super) struct Reader {
    files: Vec<File>,
    places: BTreeMap<String, Vec<Place>>,
}

impl Reader {
    /// Reads the headers of all shards.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub(super) fn open<'p>(paths: impl Iterator<Item = &'p Path>) -> Result<Self, String> {
        let mut reader = Self { files: Vec::new(), places: BTreeMap::new() };
        for path in paths {
            let file = reader.files.len();
            let told = |error: String| format!("{}: {error}", path.display());
            let mut opened = File::open(path).map_err(|error| told(error.to_string()))?;
            reader.enter(&mut opened, file).map_err(told)?;
            reader.files.push(opened);
        }
        reader.places.values_mut().for_each(|places| places.sort_by_key(|place| place.rows.start));
        Ok(reader)
    }

    fn enter(&mut self, opened: &mut File, file: usize) -> Result<(), String> {
        let mut length = [0; 8];
        opened.read_exact(&mut length).map_err(|error| error.to_string())?;
        let length = u64::from_le_bytes(length);
        let size = opened.metadata().map_err(|error| error.to_string())?.len();
        if length > size {
            return Err(format!("its header would be {length} bytes long, the file has {size}"));
        }
        let mut header = vec![0; length as usize];
        opened.read_exact(&mut header).map_err(|error| error.to_string())?;
        let metadata: Metadata = serde_json::from_slice(&header).map_err(|error| error.to_string())?;
        for (key, info) in metadata.tensors() {
            let (name, first) = key.rsplit_once('@').ok_or_else(|| format!("{key} does not say its first row"))?;
            let first: i64 = first.parse().map_err(|_| format!("{key} does not say its first row"))?;
            let shape: Vec<i64> = info.shape.iter().map(|size| *size as i64).collect();
            let [rows, row @ ..] = shape.as_slice() else { return Err(format!("{key} has no rows")) };
            if info.dtype != Dtype::F32 {
                return Err(format!("{key} is {:?}, not F32", info.dtype));
            }
            let offset = 8 + length + info.data_offsets.0 as u64;
            let place = Place { rows: first..first + rows, row: row.to_vec(), file, offset };
            self.places.entry(name.to_owned()).or_default().push(place);
        }
        Ok(())
    }

    /// Returns the names of all tensors.
    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.places.keys()
    }

    /// Returns the shape of a tensor, all rows of it.
    pub(super) fn shape(&self, name: &str) -> Option<Vec<i64>> {
        let places = self.places.get(name)?;
        let rows = places.iter().map(|place| place.rows.end).max()?;
        Some([&[rows], places[0].row.as_slice()].concat())
    }

    /// Reads rows of a tensor, float32.
    ///
    /// # Errors
    /// What is wrong, in words: a tensor or rows of it that are not there, or a file that ends before them.
    pub(super) fn rows(&self, name: &str, wanted: Range<i64>) -> Result<Tensor, String> {
        let places = self.places.get(name).ok_or_else(|| format!("{name} is missing"))?;
        let width = places[0].row.iter().product::<i64>() as usize * 4;
        let mut bytes = vec![0u8; (wanted.end - wanted.start) as usize * width];
        let mut next = wanted.start;
        for place in places.iter().filter(|place| place.rows.end > wanted.start && place.rows.start < wanted.end) {
            let (begin, end) = (next, place.rows.end.min(wanted.end));
            if place.rows.start > begin {
                break;
            }
            let into = (begin - wanted.start) as usize * width..(end - wanted.start) as usize * width;
            let offset = place.offset + (begin - place.rows.start) as u64 * width as u64;
            self.files[place.file]
                .read_exact_at(&mut bytes[into], offset)
                .map_err(|error| format!("{name}: {error}"))?;
            next = end;
        }
        if next < wanted.end {
            return Err(format!("{name} lacks rows {next} to {}", wanted.end));
        }
        let shape = [&[wanted.end - wanted.start], places[0].row.as_slice()].concat();
        Tensor::f_from_data_size(&bytes, &shape, Kind::Float).map_err(|error| format!("{name}: {error}"))
    }
}
