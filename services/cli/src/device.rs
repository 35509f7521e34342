//! `--device`: where models lie and are computed with, chosen once for the process.

use std::{str::FromStr, sync::OnceLock};

use anyhow::{bail, ensure};
use joust_model::Device;

static CHOSEN: OnceLock<tch::Device> = OnceLock::new();

/// What the user asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// The first GPU where there is one, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// A GPU, by index.
    Cuda(usize),
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let index = |text: &str| text.strip_prefix("cuda:")?.parse().ok();
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => index(text).map(Self::Cuda).ok_or_else(|| "expected auto, cpu, cuda or cuda:N".to_owned()),
        }
    }
}

/// Takes the device that the user asks for.
///
/// # Errors
/// A GPU that this build cannot use, or that this machine has not.
pub fn choose(choice: Choice) -> anyhow::Result<()> {
    let device = pick(choice, gpus())?;
    CHOSEN.get_or_init(|| device);
    Ok(())
}

/// Returns the chosen device.
pub fn torch() -> tch::Device {
    *CHOSEN.get_or_init(|| tch::Device::Cpu)
}

/// Returns the chosen device with a permit of its own.
pub fn chosen() -> Device {
    Device::new(torch())
}

/// Returns what each rank of a learner is given as `--device`: one GPU each, from the first on, where this process has one.
///
/// # Errors
/// Fewer GPUs than ranks.
pub fn of_ranks(ranks: usize) -> anyhow::Result<Vec<String>> {
    if !torch().is_cuda() {
        return Ok(vec!["cpu".to_owned(); ranks]);
    }
    let found = gpus().unwrap_or_default();
    ensure!(ranks <= found, "learner.ranks is {ranks}, this machine has {found} GPUs; each rank needs one of its own");
    Ok((0..ranks).map(|rank| format!("cuda:{rank}")).collect())
}

/// Says what libtorch finds.
pub fn report() -> String {
    match gpus() {
        None => "not in this build; `make build-cuda` builds with it".to_owned(),
        Some(0) => "no device".to_owned(),
        Some(found) => format!("{found} devices, computing on {:?}", torch()),
    }
}

/// Counts the GPUs that libtorch finds; `None` in a build without CUDA.
fn gpus() -> Option<usize> {
    cfg!(feature = "cuda").then(|| usize::try_from(tch::Cuda::device_count()).unwrap_or_default())
}

fn pick(choice: Choice, gpus: Option<usize>) -> anyhow::Result<tch::Device> {
    match (choice, gpus) {
        (Choice::Cpu, _) | (Choice::Auto, None | Some(0)) => Ok(tch::Device::Cpu),
        (Choice::Auto, Some(_)) => Ok(tch::Device::Cuda(0)),
        (Choice::Cuda(index), None) => {
            bail!("--device cuda:{index}: this joust was built without CUDA; build it with `make build-cuda`")
        }
        (Choice::Cuda(index), Some(0)) => {
            bail!("--device cuda:{index}: libtorch finds no GPU on this machine; look at nvidia-smi, or write cpu")
        }
        (Choice::Cuda(index), Some(found)) => {
            ensure!(index < found, "--device cuda:{index}: libtorch finds {found} GPUs, cuda:0 to cuda:{}", found - 1);
            Ok(tch::Device::Cuda(index))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_from_words() {
        let words = ["auto", "cpu", "cuda", "cuda:3"].map(|text| text.parse());
        assert_eq!(words, [Ok(Choice::Auto), Ok(Choice::Cpu), Ok(Choice::Cuda(0)), Ok(Choice::Cuda(3))]);
        for wrong in ["gpu", "cuda:", "cuda:-1", "cpu:0", ""] {
            assert!(wrong.parse::<Choice>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_gpu_is_taken_only_where_there_is_one() {
        let picked = |choice, gpus| pick(choice, gpus).map_err(|error| error.to_string());
        for gpus in [None, Some(0), Some(2)] {
            assert_eq!(picked(Choice::Cpu, gpus), Ok(tch::Device::Cpu));
        }
        assert_eq!(picked(Choice::Auto, None), Ok(tch::Device::Cpu));
        assert_eq!(picked(Choice::Auto, Some(0)), Ok(tch::Device::Cpu));
        assert_eq!(picked(Choice::Auto, Some(2)), Ok(tch::Device::Cuda(0)));
        assert_eq!(picked(Choice::Cuda(1), Some(2)), Ok(tch::Device::Cuda(1)));
        let refusal = |index, gpus| picked(Choice::Cuda(index), gpus).expect_err("refused");
        assert!(refusal(0, None).contains("built without CUDA"));
        assert!(refusal(0, Some(0)).contains("no GPU on this machine"));
        assert!(refusal(2, Some(2)).contains("cuda:0 to cuda:1"));
    }
}
