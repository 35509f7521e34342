//! The suite that every backend passes: what [`crate::Queue`] promises, case by case, under a clock that the suite moves.
//!
//! A case panics with the broken promise. It knows a queue only by its trait, so it can run against a backend elsewhere.

mod commits;
mod leases;
mod lines;
mod steps;

use std::{sync::Arc, time::Duration};

use joust_core::{RecordId, RunId};

use crate::{Consumer, Item, Lease, Leased, ManualClock, Queue, Settings, Topic, TopicStats};

/// How long a lease lasts in the suite.
pub const LEASE: Duration = Duration::from_secs(10);
/// Items that may wait in the suite.
pub const CAPACITY: u64 = 4;

/// Returns what the suite expects a queue to be opened with.
pub fn settings() -> Settings {
    Settings { capacity: CAPACITY, lease: LEASE, max_deliveries: 3, max_crashes: 2, ..Settings::default() }
}

/// Opens an empty queue for one case.
pub type Open<'a> = &'a mut dyn FnMut(Settings, Arc<ManualClock>) -> Arc<dyn Queue>;

/// Runs every case, each on a queue of its own.
pub async fn all(open: Open<'_>) {
    let mut fresh = || Bench::new(open);
    lines::put_is_idempotent(&fresh()).await;
    lines::order_is_kept(&fresh()).await;
    lines::topics_and_runs_are_apart(&fresh()).await;
    lines::a_full_topic_pushes_back(&fresh()).await;
    lines::a_batch_larger_than_the_capacity_fits_when_nothing_waits(&fresh()).await;
    lines::room_is_waited_for(&fresh()).await;
    lines::a_taker_is_woken_by_a_put(&fresh()).await;
    lines::a_taker_gives_up_at_its_deadline(&fresh()).await;
    lines::a_dropped_take_gives_back(&fresh()).await;
    lines::a_trace_context_stays_beside_its_record(&fresh()).await;
    leases::a_lease_runs_out_and_is_recovered(&fresh()).await;
    leases::a_taker_is_woken_by_an_expiry(&fresh()).await;
    leases::a_late_holder_may_finish_what_nobody_took(&fresh()).await;
    leases::renewal_keeps_an_item(&fresh()).await;
    leases::renewal_is_all_or_nothing(&fresh()).await;
    leases::a_released_item_counts_as_untaken(&fresh()).await;
    leases::an_item_that_always_expires_dies(&fresh()).await;
    leases::retries_end_in_the_dead_letters(&fresh()).await;
    leases::dead_letters_are_requeued(&fresh()).await;
    commits::a_commit_moves_its_input(&fresh()).await;
    commits::every_outcome_is_counted(&fresh()).await;
    commits::a_stale_lease_stops_the_whole_commit(&fresh()).await;
    commits::a_lease_is_used_once(&fresh()).await;
    commits::work_done_twice_is_put_once(&fresh()).await;
    commits::a_full_target_leaves_the_input_leased(&fresh()).await;
    commits::an_output_larger_than_the_capacity_fits(&fresh()).await;
    commits::a_commit_waits_for_room(&fresh()).await;
    steps::an_assigned_step_needs_no_lease(&fresh()).await;
    steps::an_assigned_step_keeps_the_order_of_its_leases(&fresh()).await;
    steps::steps_are_assigned_once_and_in_order(&fresh()).await;
    steps::a_stale_fence_changes_nothing(&fresh()).await;
    steps::a_stale_lease_stops_the_whole_assignment(&fresh()).await;
    steps::retired_steps_are_finished_and_kept(&fresh()).await;
}

/// A queue under test.
struct Bench {
    queue: Arc<dyn Queue>,
    clock: Arc<ManualClock>,
    run: RunId,
    prompts: Topic,
    pairs: Topic,
    who: Consumer,
}

impl Bench {
    fn new(open: Open<'_>) -> Self {
        let clock = Arc::new(ManualClock::default());
        let run = RunId::new("suite").expect("a valid name");
        Self {
            queue: open(settings(), clock.clone()),
            clock,
            prompts: Topic::prompts(&run),
            pairs: Topic::pairs(&run),
            run,
            who: Consumer::new("suite-0"),
        }
    }

    async fn put(&self, topic: &Topic, numbers: impl IntoIterator<Item = u64>) {
        let items: Vec<Item> = numbers.into_iter().map(item).collect();
        let new = items.len() as u64;
        let report = self.queue.put(topic, items).await.expect("there is room");
        assert_eq!((report.added, report.duplicates), (new, 0));
    }

    /// Takes without waiting.
    async fn take(&self, topic: &Topic, max: usize) -> Vec<Leased> {
        self.queue.take(topic, &self.who, max, Duration::ZERO).await.expect("a take")
    }

    async fn leases(&self, topic: &Topic, max: usize) -> Vec<Lease> {
        self.take(topic, max).await.into_iter().map(|leased| leased.lease).collect()
    }

    /// Reads a topic's accounts and checks that all of the run's add up.
    async fn stats(&self, topic: &Topic) -> TopicStats {
        let stats = self.queue.stats(&self.run).await.expect("stats");
        stats.balance().expect("the accounts add up");
        stats.of(&topic.name)
    }
}

fn item(number: u64) -> Item {
    let id = RecordId::derive(&[&number.to_le_bytes()]);
    Item {
        id,
        body: format!("body {number}").into_bytes(),
        trace: number.is_multiple_of(2).then(|| format!("00-{number}")),
    }
}

fn items_of(leased: &[Leased]) -> Vec<Item> {
    leased.iter().map(|leased| leased.item.clone()).collect()
}

fn items(numbers: impl IntoIterator<Item = u64>) -> Vec<Item> {
    numbers.into_iter().map(item).collect()
}
