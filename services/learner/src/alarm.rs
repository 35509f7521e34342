//! The alarm for likelihood displacement: the answers that training should make more probable become less probable.
//!
//! See "Unintentional Unalignment: Likelihood Displacement in Direct Preference Optimization", Razin et al., <https://arxiv.org/abs/2410.08847>.

/// Steps in a row before the alarm.
const STEPS: u64 = 10;

/// Watches whether chosen answers stay at least as probable as under the reference.
#[derive(Debug, Default)]
pub(crate) struct Displacement {
    /// Steps in a row in which the chosen answers are less probable than under the reference.
    below: u64,
    /// The lowest of them.
    lowest: f64,
}

impl Displacement {
    /// Takes the mean log π − log π_ref of a step's chosen answers, in nats; warns once for each stretch in which it stays below 0 and
    /// returns whether it did. A loss without a reference has its rewards below 0 always: they are not what is watched.
    pub(crate) fn watch(&mut self, step: u64, log_ratio: f64) -> bool {
        if log_ratio >= 0.0 {
            *self = Self::default();
            return false;
        }
        self.below += 1;
        self.lowest = self.lowest.min(log_ratio);
        let alarms = self.below == STEPS;
        if alarms {
            tracing::warn!(
                step,
                log_ratio = self.lowest,
                "chosen answers have been less probable than under the reference for {STEPS} steps; lower learner.learning_rate, raise \
                 loss.beta, or try loss.name \"dpop\" or \"rpo\""
            );
        }
        alarms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretch_of_steps_below_the_reference_alarms_once() {
        let mut watch = Displacement::default();
        let alarms = |watch: &mut Displacement, rewards: &[f64]| {
            rewards.iter().enumerate().filter(|(step, reward)| watch.watch(*step as u64, **reward)).count()
        };
        assert_eq!(alarms(&mut watch, &[-0.1; 9]), 0);
        assert_eq!(alarms(&mut watch, &[0.0]), 0);
        assert_eq!(alarms(&mut watch, &[-0.1; 30]), 1);
        assert_eq!(alarms(&mut watch, &[0.2]), 0);
        assert_eq!(alarms(&mut watch, &[-0.1; 10]), 1);
    }
}
