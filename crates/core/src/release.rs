//! The rule by which prompts are released: a pure function of how far the learner is.

/// How far the learner is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Optimizer steps whose update is done.
    pub steps_done: u64,
    /// Policy version that samplers can get.
    pub version: u64,
}

/// What bounds the prompts under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Release {
    /// Prompts of a step.
    pub prompts_per_step: u64,
    /// Steps of the run.
    pub steps: u64,
    /// Largest staleness in policy versions; 0 alternates strictly.
    pub max_staleness: u64,
    /// Steps between publishes; above 1 the sampler is fixed within an iteration.
    pub iteration_steps: u64,
}

impl Release {
    /// Returns the number of prompts of the whole run.
    pub fn total_positions(&self) -> u64 {
        self.steps * self.prompts_per_step
    }

    /// Returns the first position that is not trained yet.
    pub fn first_position(&self, progress: Progress) -> u64 {
        progress.steps_done * self.prompts_per_step
    }

    /// Returns the first position that may not be put yet.
    ///
    /// With iterations, a whole iteration is released when its sampler is published; without, the steps that would still be
    /// fresh enough when trained.
    pub fn allowed(&self, progress: Progress) -> u64 {
        let steps = if self.iteration_steps > 1 {
            (progress.version + 1) * self.iteration_steps
        } else {
            progress.version + 1 + self.max_staleness
        };
        steps.min(self.steps) * self.prompts_per_step
    }

    /// Returns the end of the step that `position` belongs to: prompts are put by whole steps.
    pub fn end_of_batch(&self, position: u64) -> u64 {
        (position / self.prompts_per_step + 1) * self.prompts_per_step
    }

    /// Returns the oldest policy version that may answer the prompt at `position`.
    pub fn oldest_version(&self, position: u64) -> u64 {
        let step = position / self.prompts_per_step;
        if self.iteration_steps > 1 { step / self.iteration_steps } else { step.saturating_sub(self.max_staleness) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(max_staleness: u64, iteration_steps: u64) -> Release {
        Release { prompts_per_step: 4, steps: 10, max_staleness, iteration_steps }
    }

    #[test]
    fn prompts_under_way_never_exceed_the_bound() {
        for max_staleness in 0..3 {
            for version in 0..10 {
                let progress = Progress { steps_done: version, version };
                let release = release(max_staleness, 1);
                let under_way = release.allowed(progress) - release.first_position(progress);
                assert!(under_way <= (max_staleness + 1) * 4, "{under_way}");
                // What is put now is trained at the latest when the learner has moved max_staleness on.
                let last_step = (release.allowed(progress) - 1) / 4;
                assert!(last_step - version <= max_staleness);
                assert!(release.oldest_version(last_step * 4) <= version);
            }
        }
    }

    #[test]
    fn iterations_are_a_barrier() {
        let release = release(0, 5);
        assert_eq!(release.allowed(Progress { steps_done: 3, version: 0 }), 20);
        assert_eq!(release.allowed(Progress { steps_done: 5, version: 1 }), 40);
        assert_eq!(release.oldest_version(20), 1);
    }

    #[test]
    fn the_run_ends() {
        assert_eq!(release(2, 1).allowed(Progress { steps_done: 9, version: 9 }), 40);
    }
}
