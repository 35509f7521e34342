//! Killing: a small run (prompts, outcomes, steps, checkpoints) whose process is killed anywhere still trains each outcome once.
//!
//! The tests start this test binary again as a child that runs [`work`], kill it, and let the work end in their own process.

use std::{
    env,
    fs::{self, File},
    io::{self, BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use joust_core::{
    RecordId, RunId,
    rng::{Stream, uniform},
};

use super::embedded;
use crate::{Consumer, Done, Item, Lease, Leased, Queue, Settings, StepManifest, SystemClock, Topic};

const FOLDER: &str = "JOUST_QUEUE_CRASH_FOLDER";
const STEPPING: &str = "JOUST_QUEUE_CRASH_STEPPING";
/// The test that is the child.
const CHILD: &str = "tests::crash::an_undisturbed_run_trains_everything_once";
/// What the child prints after each of its steps.
const MARK: &str = "#step";

const PROMPTS: u8 = 12;
const PROMPTS_PER_STEP: usize = 3;
const STEPS_PER_CHECKPOINT: u64 = 2;

fn is_tie(prompt: u8) -> bool {
    prompt % 7 == 3
}

/// What an undisturbed run trains, in order.
fn expected() -> Vec<u8> {
    (0..PROMPTS).filter(|prompt| !is_tie(*prompt)).collect()
}

fn item(kind: &[u8], number: u8) -> Item {
    Item { id: RecordId::derive(&[kind, &[number]]), body: vec![number], trace: None }
}

fn queue(folder: &Path) -> Arc<dyn Queue> {
    let settings = Settings { capacity: 5, max_crashes: u32::MAX, ..Settings::default() };
    embedded(&folder.join("queue.redb"), settings, Arc::new(SystemClock::default()))
}

/// The weights of this run: which outcomes were trained, in order.
#[derive(Default)]
struct Checkpoint {
    steps: u64,
    trained: Vec<u8>,
}

impl Checkpoint {
    fn read(folder: &Path) -> Self {
        match fs::read(folder.join("checkpoint")) {
            Ok(bytes) => Self { steps: bytes[0].into(), trained: bytes[1..].to_vec() },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::default(),
            Err(error) => panic!("the checkpoint cannot be read: {error}"),
        }
    }

    fn write(&self, folder: &Path) {
        let written = folder.join("checkpoint.new");
        let mut file = File::create(&written).expect("a file");
        file.write_all(&[&[self.steps as u8], &self.trained[..]].concat()).expect("a checkpoint");
        file.sync_all().expect("a synced checkpoint");
        fs::rename(written, folder.join("checkpoint")).expect("a renamed checkpoint");
    }
}

/// All roles of the run, one operation after the other.
struct Worker<'a> {
    folder: &'a Path,
    queue: Arc<dyn Queue>,
    prompts: Topic,
    pairs: Topic,
    who: Consumer,
    state: Checkpoint,
    mark: &'a mut dyn FnMut(),
}

impl Worker<'_> {
    async fn take(&mut self, topic: &Topic, max: usize) -> Vec<Leased> {
        let taken = self.queue.take(topic, &self.who, max, Duration::ZERO).await.expect("a take");
        (self.mark)();
        taken
    }

    /// Coordinator: puts the next prompts while there is room.
    async fn put(&mut self, next: &mut u8) {
        let end = (*next + 4).min(PROMPTS);
        if *next < end && self.queue.wait_for_room(&self.prompts, 4, Duration::ZERO).await.expect("a look") {
            let items = (*next..end).map(|prompt| item(b"prompt", prompt)).collect();
            self.queue.put(&self.prompts, items).await.expect("a put");
            *next = end;
            (self.mark)();
        }
    }

    /// Rollout and judge: moves prompts on to outcomes, ties to nowhere.
    async fn judge(&mut self) {
        let taken = self.take(&self.prompts.clone(), 2).await;
        let mut next = Vec::new();
        let mut done: Vec<(Lease, Done)> = Vec::new();
        for Leased { lease, item: prompt, .. } in taken {
            let number = prompt.body[0];
            if is_tie(number) {
                done.push((lease, Done::Dropped("tie".into())));
            } else {
                done.push((lease, Done::Moved));
                next.push((self.pairs.clone(), item(b"outcome", number)));
            }
        }
        self.queue.commit(done, next).await.expect("a commit");
        (self.mark)();
    }

    /// Learner: assigns a step, trains it, and checkpoints.
    async fn learn(&mut self, fence: crate::Fence, held: &mut Vec<Leased>) {
        held.extend(self.take(&self.pairs.clone(), PROMPTS_PER_STEP - held.len()).await);
        let left = expected().len() - self.state.trained.len();
        if held.len() < PROMPTS_PER_STEP.min(left) {
            return;
        }
        let step: Vec<Leased> = std::mem::take(held);
        let plan: Vec<u8> = step.iter().map(|leased| leased.item.body[0]).collect();
        let manifest = StepManifest { step: self.state.steps, body: plan.clone() };
        let leases = step.into_iter().map(|leased| leased.lease).collect();
        self.queue.assign(&self.pairs, leases, manifest, fence).await.expect("an assignment");
        (self.mark)();
        self.train(&plan);
        if self.state.steps.is_multiple_of(STEPS_PER_CHECKPOINT) || self.state.trained.len() == expected().len() {
            self.state.write(self.folder);
            (self.mark)();
            self.queue.retire(&self.pairs, self.state.steps - 1, 0, fence).await.expect("a retirement");
            (self.mark)();
        }
    }

    fn train(&mut self, plan: &[u8]) {
        self.state.trained.extend(plan);
        self.state.steps += 1;
    }

    /// Takes up the run where the checkpoint and the assigned steps leave it.
    async fn recover(&mut self) -> crate::Fence {
        let fence = self.queue.fence(&self.pairs).await.expect("a fence");
        (self.mark)();
        if let Some(last) = self.state.steps.checked_sub(1) {
            self.queue.retire(&self.pairs, last, 0, fence).await.expect("a retirement");
            (self.mark)();
        }
        for step in self.queue.assigned(&self.pairs, self.state.steps).await.expect("the assigned steps") {
            let items: Vec<u8> = step.items.iter().map(|item| item.body[0]).collect();
            assert_eq!((step.manifest.step, &step.manifest.body), (self.state.steps, &items));
            self.train(&items);
        }
        fence
    }
}

/// Runs to the end from wherever the folder stands, telling after each operation.
fn work(folder: &Path, mark: &mut dyn FnMut()) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let run = RunId::new("crash").expect("a valid name");
        let mut worker = Worker {
            folder,
            queue: queue(folder),
            prompts: Topic::prompts(&run),
            pairs: Topic::pairs(&run),
            who: Consumer::new("crash-0"),
            state: Checkpoint::read(folder),
            mark,
        };
        let fence = worker.recover().await;
        let (mut next, mut held) = (0, Vec::new());
        let mut rounds = 0;
        while worker.state.trained.len() < expected().len() {
            rounds += 1;
            assert!(rounds < 100, "the run does not end: an item was lost");
            worker.put(&mut next).await;
            worker.judge().await;
            worker.learn(fence, &mut held).await;
        }
        worker.state.write(folder);
        worker.queue.retire(&worker.pairs, worker.state.steps - 1, 0, fence).await.expect("a retirement");
    });
}

/// Lets the run end in this process and checks that nothing was lost or doubled.
fn finish(folder: &Path, what: &str) {
    work(folder, &mut || ());
    assert_eq!(Checkpoint::read(folder).trained, expected(), "{what}");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let (queue, run) = (queue(folder), RunId::new("crash").expect("a valid name"));
        let stats = queue.stats(&run).await.expect("stats");
        stats.balance().unwrap_or_else(|error| panic!("{what}: {error}"));
        let (prompts, pairs) = (stats.of(&Topic::prompts(&run).name), stats.of(&Topic::pairs(&run).name));
        let trained = expected().len() as u64;
        let ties = u64::from(PROMPTS) - trained;
        assert_eq!((prompts.put, prompts.finished, prompts.dropped["tie"]), (PROMPTS.into(), trained, ties), "{what}");
        assert_eq!((pairs.put, pairs.finished, pairs.kept), (trained, trained, trained), "{what}");
        let kept = queue.kept(&Topic::pairs(&run)).await.expect("what is kept");
        assert_eq!(kept.iter().map(|(_, item)| item.body[0]).collect::<Vec<_>>(), expected(), "{what}");
    });
}

/// The process that is killed; without a parent, the run that all others are compared with.
#[test]
fn an_undisturbed_run_trains_everything_once() {
    let Some(folder) = env::var_os(FOLDER) else {
        let folder = tempfile::tempdir().expect("a folder");
        return finish(folder.path(), "undisturbed");
    };
    let stepping = env::var_os(STEPPING).is_some();
    work(Path::new(&folder), &mut || {
        let mut out = io::stdout().lock();
        writeln!(out, "\n{MARK}").and_then(|()| out.flush()).expect("the parent listens");
        if stepping {
            io::stdin().lock().read_line(&mut String::new()).expect("the parent speaks");
        }
    });
}

struct Victim {
    process: Child,
    out: BufReader<ChildStdout>,
}

impl Victim {
    fn start(folder: &Path, setting: (&str, &str)) -> Self {
        let mut process = Command::new(env::current_exe().expect("this test"))
            .args(["--exact", CHILD, "--nocapture", "--test-threads=1"])
            .env(FOLDER, folder)
            .env(setting.0, setting.1)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a child");
        let out = BufReader::new(process.stdout.take().expect("it is piped"));
        Self { process, out }
    }

    /// Waits for the child's next step; `false` when it has ended.
    fn step(&mut self) -> bool {
        let mut line = String::new();
        while self.out.read_line(&mut line).expect("the child's output") > 0 {
            if line.trim_end() == MARK {
                return true;
            }
            line.clear();
        }
        false
    }

    fn go_on(&mut self) {
        self.process.stdin.as_mut().expect("it is piped").write_all(b"\n").expect("the child listens");
    }

    /// Sends SIGKILL, unless the child has ended, and waits for the end.
    fn kill(mut self) -> ExitStatus {
        self.process.kill().expect("a child that was not waited for");
        self.process.wait().expect("an end")
    }
}

#[test]
fn a_kill_between_any_two_steps_loses_and_doubles_nothing() {
    let mut kills = 0;
    loop {
        let folder = tempfile::tempdir().expect("a folder");
        let mut victim = Victim::start(folder.path(), (STEPPING, "1"));
        let mut alive = victim.step();
        for _ in 0..kills {
            victim.go_on();
            alive = victim.step();
        }
        let status = victim.kill();
        finish(folder.path(), &format!("killed after step {}", kills + 1));
        if !alive {
            assert!(status.success(), "the undisturbed child ends by itself: {status}");
            break;
        }
        assert!(!status.success(), "{status}");
        kills += 1;
    }
    assert!(kills > 20, "a run has more steps than {kills}");
}

#[test]
fn a_kill_before_any_commit_loses_and_doubles_nothing() {
    for nth in 1.. {
        let folder = tempfile::tempdir().expect("a folder");
        let mut victim = Victim::start(folder.path(), ("JOUST_FAILPOINT", &format!("queue_before_commit:{nth}")));
        while victim.step() {}
        let status = victim.process.wait().expect("an end");
        finish(folder.path(), &format!("aborted before commit {nth}"));
        if status.success() {
            assert!(nth > 20, "a run has more commits than {nth}");
            break;
        }
    }
}

#[test]
fn kills_at_random_moments_lose_and_double_nothing() {
    let mut kills = 0;
    for seed in 0..10 {
        let folder = tempfile::tempdir().expect("a folder");
        for round in 0.. {
            let mut victim = Victim::start(folder.path(), ("JOUST_QUEUE_CRASH_FREE", "1"));
            let steps = (uniform(seed, Stream::Init, round, (0, 0)) * 12.0) as usize;
            // The child works on while the kill is under way, so it hits anywhere, also within a commit.
            let alive = (0..=steps).all(|_| victim.step());
            let status = victim.kill();
            if !alive {
                assert!(status.success(), "seed {seed}, round {round}: {status}");
                break;
            }
            kills += 1;
        }
        finish(folder.path(), &format!("seed {seed}"));
    }
    assert!(kills >= 20, "only {kills} kills");
}
