//! From the optimizer's keys of a file to the trainer's settings.

use joust_config::run::{Optimization, Optimizer as Named, SchedulerType};
use joust_train::{AdafactorParams, AdamWParams, OptimizerParams, RmsPropParams, Schedule, ScheduleKind, Settings};

/// Builds the settings of a training of `total` updates.
pub fn settings(learning_rate: f64, optim: &Optimization, total: u64) -> Settings {
    let kind = match optim.lr_scheduler_type {
        SchedulerType::Constant => ScheduleKind::Constant,
        SchedulerType::Linear => ScheduleKind::Linear,
        SchedulerType::Cosine => ScheduleKind::Cosine,
    };
    Settings {
        optimizer: optimizer(optim),
        schedule: Schedule { kind, learning_rate, warmup_steps: optim.warmup(total), total_steps: total },
        max_grad_norm: optim.max_grad_norm,
    }
}

fn optimizer(optim: &Optimization) -> OptimizerParams {
    let weight_decay = optim.weight_decay;
    match optim.optimizer {
        Named::Adamw => OptimizerParams::AdamW(AdamWParams {
            beta1: optim.adam_beta1,
            beta2: optim.adam_beta2,
            epsilon: optim.adam_epsilon,
            weight_decay,
        }),
        Named::Rmsprop => OptimizerParams::RmsProp(RmsPropParams { weight_decay, ..RmsPropParams::default() }),
        Named::Adafactor => OptimizerParams::Adafactor(AdafactorParams { weight_decay, ..AdafactorParams::default() }),
    }
}

/// Sets libtorch's threads once for the process: as many as asked for, or one a core.
pub fn set_threads(threads: u32) {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    joust_model::set_threads(if threads == 0 { cores } else { threads as usize });
}
