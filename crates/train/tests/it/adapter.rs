//! Masters that are an adapter: they learn, the base below them does not change, and dropout follows step and micro-batch.

use joust_model::{Adapter, Device, Dtype, Llama, LoraConfig, ModelConfig, Weights};
use joust_testkit::{tiny_config, tiny_weights};
use joust_train::{Master, OptimizerParams, Schedule, ScheduleKind, Settings, sft_step};
use tch::Tensor;

struct Trained {
    weights: Weights,
    base: Llama,
    master: Master,
}

fn trained(dtype: Dtype, dropout: f64) -> Trained {
    let config: ModelConfig = tiny_config(100).with_dtype(dtype);
    let weights = tiny_weights(&config, 1).to_kind(dtype.kind());
    let lora = LoraConfig {
        rank: 4,
        alpha: 8.0,
        dropout,
        targets: vec!["all-linear".into()],
        rank_stabilized: false,
        exceptions: Default::default(),
    };
    let adapter = Adapter::fresh(&lora, &config, 2).expect("fresh");
    let schedule = Schedule { kind: ScheduleKind::Constant, learning_rate: 1e-2, warmup_steps: 0, total_steps: 40 };
    let settings = Settings { optimizer: OptimizerParams::default(), schedule, max_grad_norm: 1.0 };
    let base = Llama::new(&config, &weights).expect("built");
    let master = Master::new(&config, &adapter.weights, settings).on_base(&base, lora, 7);
    Trained { weights, base, master }
}

fn ids() -> Tensor {
    Tensor::from_slice(&[5i64, 9, 33, 71, 12, 8]).view([1, 6])
}

#[test]
fn the_adapter_learns_and_the_base_stays() {
    for dtype in [Dtype::Float32, Dtype::Bfloat16] {
        let Trained { weights, base, mut master } = trained(dtype, 0.0);
        let (before, hash) = (base.hidden(&ids()), weights.hash().expect("hash"));
        assert_eq!(master.model().expect("built").hidden(&ids()), before, "a fresh adapter adds nothing");
        let pairs: [(&[u32], &[u32]); 2] = [(&[5, 9], &[33, 71, 12, 2]), (&[40], &[41, 42, 43, 2])];
        let losses: Vec<f64> = (0..40)
            .map(|_| sft_step(&mut master, &pairs, 1, &Device::cpu()).expect("a step"))
            .map(|(loss, update)| {
                assert!(update.grad_norm > 0.0);
                loss
            })
            .collect();
        assert!(losses[39] < 0.2 * losses[0], "{dtype:?}: {losses:?}");
        assert_eq!(base.hidden(&ids()), before);
        assert_eq!(weights.hash().expect("hash"), hash);
        // What is kept elsewhere computes the same.
        let kept = master.model_of(master.weights.snapshot(dtype.kind())).expect("built");
        assert_eq!(kept.hidden(&ids()), master.model().expect("built").hidden(&ids()));
    }
}

#[test]
fn masks_follow_micro_batch_and_step_and_come_back() {
    let Trained { mut master, .. } = trained(Dtype::Float32, 0.3);
    let pairs: [(&[u32], &[u32]); 1] = [(&[5, 9], &[33, 71, 12, 2])];
    sft_step(&mut master, &pairs, 1, &Device::cpu()).expect("a step"); // B is no longer zero
    let run = |model: Llama| model.hidden(&ids()).detach();
    let training = |number| run(master.training_model(number).expect("built"));
    let whole = training(0);
    assert_eq!(training(0), whole);
    assert_ne!(training(1), whole);
    let without = run(master.model().expect("built"));
    assert_ne!(without, whole);
    assert_eq!(run(master.model().expect("built")), without);
    master.optimizer.updates += 1;
    assert_ne!(run(master.training_model(0).expect("built")), whole, "another step");
}
