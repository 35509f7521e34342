//! Learning-rate schedules, with the meaning that Hugging Face's trainer gives them.

/// Shape of the schedule after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScheduleKind {
    /// Stays at the peak.
    Constant,
    /// Falls linearly to 0 at the last step.
    Linear,
    /// Falls as half a cosine to 0 at the last step.
    Cosine,
}

/// A schedule over optimizer steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// Shape.
    pub kind: ScheduleKind,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Steps of linear warm-up from 0.
    pub warmup_steps: u64,
    /// Steps of the whole run.
    pub total_steps: u64,
}

impl Schedule {
    /// Computes the learning rate of a step, counted from 0.
    pub fn at(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return self.learning_rate * step as f64 / self.warmup_steps as f64;
        }
        let rest = self.total_steps.saturating_sub(self.warmup_steps).max(1) as f64;
        let done = ((step - self.warmup_steps) as f64 / rest).min(1.0);
        self.learning_rate
            * match self.kind {
                ScheduleKind::Constant => 1.0,
                ScheduleKind::Linear => 1.0 - done,
                ScheduleKind::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * done).cos()),
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of `transformers.get_scheduler(kind, optimizer, 10, 110)` at lr 1.0.
    #[test]
    fn values_are_those_of_transformers() {
        let at = |kind, step| Schedule { kind, learning_rate: 1.0, warmup_steps: 10, total_steps: 110 }.at(step);
        assert_eq!(at(ScheduleKind::Linear, 5), 0.5);
        assert_eq!(at(ScheduleKind::Linear, 60), 0.5);
        assert_eq!(at(ScheduleKind::Constant, 109), 1.0);
        assert!((at(ScheduleKind::Cosine, 35) - 0.853_553_390_593_273_7).abs() < 1e-12);
        assert!(at(ScheduleKind::Cosine, 110) < 1e-12);
    }
}
