//! The users that a reward model knows (PAL), in a file beside its weights.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use tch::Tensor;

const FILE: &str = "users.json";

/// Prototypes in the space of the answers, and each user's shares of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct People {
    /// `[K][D]`.
    pub prototypes: Vec<Vec<f64>>,
    /// K shares a user, which add up to 1.
    pub users: BTreeMap<String, Vec<f64>>,
}

impl People {
    /// Reads the users of a folder; `None` if it has none.
    ///
    /// # Errors
    /// A file that is damaged.
    pub fn read(folder: &Path) -> anyhow::Result<Option<Self>> {
        let path = folder.join(FILE);
        if !path.exists() {
            return Ok(None);
        }
        let damaged = || format!("{} is damaged", path.display());
        let people: Self = serde_json::from_slice(&fs::read(&path).with_context(damaged)?).with_context(damaged)?;
        let (kinds, width) = (people.prototypes.len(), people.prototypes.first().map_or(0, Vec::len));
        let whole = people.prototypes.iter().all(|place| place.len() == width)
            && people.users.values().all(|shares| shares.len() == kinds);
        ensure!(whole && width > 0, "{}: its rows are of different lengths", damaged());
        Ok(Some(people))
    }

    /// Writes them into a folder that is there.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, folder: &Path) -> joust_model::Result<()> {
        let path = folder.join(FILE);
        let bytes = serde_json::to_vec_pretty(self).expect("numbers by name always encode");
        fs::write(&path, bytes).map_err(joust_model::Error::io("write", path))
    }

    /// Returns the prototypes, float32 `[K, D]`.
    pub fn tensor(&self) -> Tensor {
        let flat: Vec<f32> = self.prototypes.iter().flatten().map(|x| *x as f32).collect();
        Tensor::from_slice(&flat).view([self.prototypes.len() as i64, -1])
    }

    /// Returns the ideal point of a user, D numbers; `None` for someone unknown.
    pub fn ideal(&self, user: &str) -> Option<Vec<f64>> {
        let shares = self.users.get(user)?;
        let width = self.prototypes.first().map_or(0, Vec::len);
        let at = |d: usize| shares.iter().zip(&self.prototypes).map(|(share, place)| share * place[d]).sum();
        Some((0..width).map(at).collect())
    }
}
