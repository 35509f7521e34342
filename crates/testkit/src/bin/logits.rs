//! Prints a model's logits of given ids, computed in float32, as JSON, for comparison with `transformers` and, for a PEFT folder, with `peft`.
//!
//! usage: `logits MODEL ID[,ID..]` prints `[[..V..], ..T..]`, or one row of scores a token for a reward model

use std::{error::Error, path::Path};

use joust_model::{Dtype, Llama, open};
use tch::{Kind, Tensor};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, ids] = arguments.as_slice() else {
        return Err("usage: logits MODEL ID[,ID..]".into());
    };
    let ids: Vec<i64> = ids.split(',').map(str::parse).collect::<Result<_, _>>()?;
    let (config, weights, adapter) = open(Path::new(folder))?;
    let base = Llama::new(&config.with_dtype(Dtype::Float32), &weights.to_kind(Kind::Float))?;
    let model = match adapter {
        Some(found) => base.with_adapter(&found.adapter, None)?,
        None => base,
    };
    let hidden = tch::no_grad(|| model.hidden(&Tensor::from_slice(&ids).unsqueeze(0)));
    let rows = tch::no_grad(|| model.head(&hidden)).squeeze_dim(0).to_kind(Kind::Float);
    println!("{}", serde_json::to_string(&Vec::<Vec<f32>>::try_from(&rows)?)?);
    Ok(())
}
