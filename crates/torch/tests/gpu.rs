//! What only GPUs show; `scripts/gpu_check.sh` runs it on a machine that has them. Without one each of these tests fails.

use joust_testkit::ranks::{Rank, run, tell};
use joust_torch::{Limits, ProcessGroup, Reduce, Result, Step, adamw, logprobs, rms_norm, swiglu};
use tch::{Cuda, Device, Kind, Tensor};

const GPU: Device = Device::Cuda(0);

fn values(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.to_kind(Kind::Double).view([-1])).expect("numbers")
}

#[test]
#[ignore = "a rank of the other tests"]
fn a_rank() {
    let Some(rank) = Rank::of_this_process() else { return };
    let group = ProcessGroup::join(rank.store(), rank.join()).expect("all join");
    collect(&group, Device::Cuda(rank.rank)).expect("every collective works");
}

fn collect(group: &ProcessGroup, device: Device) -> Result<()> {
    let (rank, size) = (group.rank() as i64, group.size() as i64);
    for kind in [Kind::Float, Kind::Double, Kind::Int64] {
        let own = || Tensor::arange(4, (kind, device)) + rank;
        let expected = |k: f64| (0..size).map(|rank| k + rank as f64).sum::<f64>();
        let summed = group.all_reduce(&own(), Reduce::Sum)?.wait()?;
        assert_eq!((summed.device(), values(&summed)), (device, [0.0, 1.0, 2.0, 3.0].map(expected).to_vec()));
        assert_eq!(values(&group.all_reduce(&own(), Reduce::Max)?.wait()?)[0], (size - 1) as f64);
        assert_eq!(values(&group.all_reduce(&own(), Reduce::Min)?.wait()?)[0], 0.0);
    }
    let table = Tensor::arange(2 * size * 3, (Kind::Float, device)).view([2 * size, 3]) * (rank + 1);
    let factor = (size * (size + 1) / 2) as f64;
    let expected: Vec<f64> = (0..6).map(|k| factor * (rank * 6 + k) as f64).collect();
    assert_eq!(values(&group.reduce_scatter(&table)?.wait()?), expected);
    // Weights are gathered as bytes.
    let part = Tensor::full([1, 2], rank, (Kind::BFloat16, device)).view_dtype(Kind::Uint8);
    let stacked = group.all_gather(&part)?.wait()?.view_dtype(Kind::BFloat16);
    assert_eq!(values(&stacked), (0..size).flat_map(|rank| [rank as f64; 2]).collect::<Vec<_>>());
    let given = group.broadcast(&Tensor::full([1], rank, (Kind::Float, device)), size as usize - 1)?.wait()?;
    assert_eq!(values(&given), [(size - 1) as f64]);
    // The same group moves what lies on the CPU.
    let counted = group.all_reduce(&Tensor::from_slice(&[1i64]), Reduce::Sum)?.wait()?;
    assert_eq!(values(&counted), [size as f64]);
    group.barrier()?;
    tell("ok");
    Ok(())
}

#[test]
#[ignore = "needs a GPU"]
fn every_collective_agrees_with_a_rank_on_each_gpu() {
    let gpus = usize::try_from(Cuda::device_count()).expect("a count");
    assert!(gpus > 0, "libtorch finds no GPU");
    assert_eq!(run("collect", gpus), vec!["ok"; gpus]);
}

/// Fails where a function of tensors on the GPU differs from the same on the CPU.
fn agree(what: &str, inputs: &[Tensor], f: impl Fn(&[Tensor]) -> Tensor) {
    let moved: Vec<Tensor> = inputs.iter().map(|input| input.to_device(GPU)).collect();
    let (found, expected) = (f(&moved), f(inputs));
    assert_eq!(found.device(), GPU, "{what}");
    let apart = (found.to_device(Device::Cpu) - expected).abs().max().double_value(&[]);
    assert!(apart < 1e-4, "{what} is {apart} apart");
}

#[test]
#[ignore = "needs a GPU"]
fn formulas_on_the_gpu_agree_with_the_loops_on_the_cpu() {
    let random = |shape: &[i64]| Tensor::randn(shape, (Kind::Float, Device::Cpu));
    agree("rms_norm", &[random(&[7, 64]), random(&[64])], |x| rms_norm(&x[0], &x[1], 1e-6).expect("it fits"));
    agree("swiglu", &[random(&[7, 64])], |x| swiglu(&x[0]).expect("it fits"));
    let targets = Tensor::from_slice(&[0i64, 3, 299, 7, 11]);
    agree("logprobs", &[random(&[5, 32]), random(&[300, 32]), targets], |x| {
        logprobs(&x[0], &x[1], &x[2], Limits { slice: 500, kept: 1000 }).expect("it fits")
    });
    let step =
        Step { scale: 0.5, decay: 1e-3, beta1: 0.9, beta2: 0.99, epsilon: 1e-8, learning_rate: 1e-2, updates: 3 };
    agree("adamw", &[random(&[9, 8]), random(&[9, 8]), random(&[9, 8]), random(&[9, 8]).square()], |x| {
        let weight = x[0].copy();
        adamw(&weight, &x[1], [&x[2].copy(), &x[3].copy()], None, &step).expect("it fits");
        weight
    });
}
