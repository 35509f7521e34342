//! The device and its permit: sampling and training take turns, so that they do not oversubscribe the cores.

use std::sync::Arc;

use parking_lot::{FairMutex, FairMutexGuard};

/// A device with one permit, held per decode step or micro-batch; waiters are served in order.
#[derive(Debug, Clone)]
pub struct Device {
    permit: Arc<FairMutex<()>>,
    device: tch::Device,
}

/// The right to run tensor work until dropped.
pub struct Permit<'a>(#[allow(dead_code, reason = "held for its lifetime")] FairMutexGuard<'a, ()>);

impl Device {
    /// Wraps libtorch's device.
    pub fn new(device: tch::Device) -> Self {
        Self { permit: Arc::default(), device }
    }

    /// Returns the CPU with a permit of its own.
    pub fn cpu() -> Self {
        Self::new(tch::Device::Cpu)
    }

    /// Returns libtorch's device.
    pub fn torch(&self) -> tch::Device {
        self.device
    }

    /// Waits, blocking the thread, for the permit; never call it on a tokio thread.
    pub fn acquire(&self) -> Permit<'_> {
        Permit(self.permit.lock())
    }
}

/// Sets libtorch's process-wide thread count; the binary calls it once, before any tensor work.
pub fn set_threads(threads: usize) {
    tch::set_num_threads(threads.max(1) as i32);
}
