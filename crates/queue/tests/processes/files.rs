//! A file that another process holds, that is damaged or has no room is named; a record that ends its worker is given up.

use std::{fs, path::Path, time::Duration};

use joust_core::rng::{Stream, bits};
use joust_queue::{Consumer, Done, Error, Queue, StepManifest, Topic};

use crate::{
    child::{self, Victim},
    item, number_of, open, run_to_end,
    script::run_id,
    settings, sized_item,
};

fn topic() -> Topic {
    Topic::prompts(&run_id())
}

#[test]
#[ignore = "started by the tests beside it"]
fn holder() {
    let _queue = open(&child::file()).expect("a queue");
    child::acknowledge("held");
    child::wait_for_parent();
}

#[test]
fn a_file_that_another_process_holds_is_named_until_that_ends() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("queue.redb");
    let victim = Victim::start("files::holder", &file, &[]);
    assert_eq!(victim.next().as_deref(), Some("held"));
    let refused = open(&file).err();
    assert!(matches!(&refused, Some(Error::Locked { path }) if *path == file), "{refused:?}");
    assert!(!victim.kill().1.success());
    assert!(open(&file).is_ok(), "a killed process holds nothing");
}

#[test]
fn what_a_killed_maker_left_beside_the_file_is_no_hindrance() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("queue.redb");
    let draft = folder.path().join("queue.redb.new");
    fs::write(&draft, vec![0; 9000]).expect("a file");
    run_to_end(open(&file).expect("a queue").put(&topic(), vec![item(1)])).expect("a put");
    assert!(!draft.exists());
    assert_eq!(run_to_end(open(&file).expect("a queue").put(&topic(), vec![item(1)])).expect("a put").duplicates, 1);
}

/// Takes the first item and dies of it.
#[test]
#[ignore = "started by the tests beside it"]
fn taker_that_dies() {
    let queue = open(&child::file()).expect("a queue");
    let taken = run_to_end(queue.take(&topic(), &Consumer::new("taker"), 1, Duration::ZERO)).expect("a take");
    for leased in &taken {
        child::acknowledge(&number_of(&leased.item).to_string());
    }
    std::process::abort();
}

#[test]
fn an_item_that_ends_each_process_is_given_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("queue.redb");
    run_to_end(open(&file).expect("a queue").put(&topic(), vec![item(6), item(7)])).expect("a put");
    for _ in 0..settings().max_crashes {
        let (taken, _) = Victim::start("files::taker_that_dies", &file, &[]).end();
        assert_eq!(taken, ["6"], "it stays first in line");
    }
    let (taken, _) = Victim::start("files::taker_that_dies", &file, &[]).end();
    assert_eq!(taken, ["7"], "the next one has its turn");
    let queue = open(&file).expect("a queue");
    run_to_end(async {
        let dead = queue.dead(&topic()).await.expect("the dead letters");
        assert_eq!(dead.iter().map(|letter| number_of(&letter.item)).collect::<Vec<_>>(), [6]);
        let stats = queue.stats(&topic().run).await.expect("the accounts");
        stats.balance().expect("the accounts add up");
        assert_eq!(stats.of(&topic().name).crashed, u64::from(settings().max_crashes) + 1);
    });
}

/// Puts until it cannot any more.
#[test]
#[ignore = "started by the tests beside it"]
fn filler() {
    run_to_end(async {
        let queue = open(&child::file()).expect("room to begin");
        for number in 0..1000 {
            match queue.put(&topic(), vec![sized_item(number, 64 << 10)]).await {
                Ok(_) => child::acknowledge("put"),
                Err(error) => {
                    let kind = if matches!(error, Error::DiskFull { .. }) { "full" } else { "other" };
                    let again = queue.put(&topic(), vec![sized_item(number, 9)]).await;
                    return child::acknowledge(&format!("{kind}, {}: {error}", again.is_err()));
                }
            }
        }
    });
}

#[test]
fn a_file_that_may_not_grow_is_named_and_keeps_what_was_acknowledged() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("queue.redb");
    let (mut done, status) = Victim::start_within(8 << 10, "files::filler", &file).end();
    assert!(status.success(), "the child ends by itself: {status}, {done:?}");
    let error = done.pop().expect("an error");
    assert!(error.starts_with("full, true: ") && error.contains("queue.redb"), "{error}");
    assert!(done.len() > 5 && done.iter().all(|done| done == "put"), "{done:?}");
    let queue = open(&file).expect("what was written opens");
    run_to_end(async {
        let stats = queue.stats(&topic().run).await.expect("the accounts");
        stats.balance().expect("the accounts add up");
        assert_eq!(stats.of(&topic().name).waiting, done.len() as u64);
        let taken = queue.take(&topic(), &Consumer::new("t"), 1000, Duration::ZERO).await.expect("a take");
        let put: Vec<_> = (0..done.len() as u64).map(|number| sized_item(number, 64 << 10)).collect();
        assert!(taken.into_iter().map(|leased| leased.item).eq(put), "each as it was put");
        assert_eq!(queue.put(&topic(), vec![item(5000)]).await.expect("there is room again").added, 1);
    });
}

/// Makes a file with items in every place.
fn fill(file: &Path) {
    let queue = open(file).expect("a queue");
    run_to_end(async {
        let (topic, who) = (topic(), Consumer::new("w"));
        queue.put(&topic, (0..300).map(|number| sized_item(number, 300)).collect()).await.expect("a put");
        let fence = queue.fence(&topic).await.expect("a fence");
        for step in 0..6 {
            let taken = queue.take(&topic, &who, 10, Duration::ZERO).await.expect("a take");
            let leases = taken.into_iter().map(|leased| leased.lease).collect();
            let plan = StepManifest { step, body: vec![7; 300] };
            queue.assign(&topic, leases, plan, fence).await.expect("an assignment");
        }
        queue.retire(&topic, 2, 0, fence).await.expect("a retirement");
        for _ in 0..settings().max_deliveries {
            let taken = queue.take(&topic, &who, 10, Duration::ZERO).await.expect("a take");
            let done = taken.into_iter().map(|leased| (leased.lease, Done::Retry("bad".into()))).collect();
            queue.commit(done, Vec::new()).await.expect("a commit");
        }
    });
}

/// Does a little of everything.
async fn use_all(queue: &dyn Queue) -> joust_queue::Result<()> {
    let topic = topic();
    queue.stats(&topic.run).await?;
    queue.kept(&topic).await?;
    queue.assigned(&topic, 0).await?;
    let dead = queue.dead(&topic).await?;
    queue.requeue(&topic, &dead.into_iter().map(|letter| letter.item.id).collect::<Vec<_>>()).await?;
    queue.put(&topic, (1000..1100).map(|number| sized_item(number, 300)).collect()).await?;
    let taken = queue.take(&topic, &Consumer::new("w"), 1000, Duration::ZERO).await?;
    let next = taken.iter().map(|leased| (Topic::pairs(&topic.run), leased.item.clone())).collect();
    let done = taken.into_iter().map(|leased| (leased.lease, Done::Moved)).collect();
    queue.commit(done, next).await?;
    let fence = queue.fence(&topic).await?;
    queue.retire(&topic, 99, 99, fence).await
}

#[test]
fn a_damaged_file_is_named_and_ends_no_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let (whole, damaged) = (folder.path().join("whole.redb"), folder.path().join("queue.redb"));
    fill(&whole);
    let whole = fs::read(&whole).expect("the file");
    let mut refused = 0;
    for seed in 0..100 {
        let mut bytes = whole.clone();
        for place in 0..8 {
            let noise = bits(seed, Stream::Init, place, (0, 0));
            // Half of the damage hits the first pages, where every look passes.
            let reach = if place % 2 == 0 { bytes.len() } else { 64 << 10 };
            let at = (noise >> 8) as usize % reach.min(bytes.len());
            bytes[at] ^= (noise as u8).max(1);
        }
        fs::write(&damaged, &bytes).expect("a file");
        let used = open(&damaged).and_then(|queue| run_to_end(use_all(&*queue)));
        refused += usize::from(matches!(used, Err(Error::Corrupt { .. })));
        // Damage within an id reads as another id, so errors of use are right as well; a cut-off operation has panicked.
        assert!(!matches!(used, Err(Error::CutOff { .. })), "seed {seed}: {used:?}");
    }
    assert!(refused > 10, "the damage was found {refused} times only");
}

#[test]
fn what_only_looks_like_a_queue_file_is_named_and_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("queue.redb");
    let garbage: Vec<u8> = (0..9000).map(|place| bits(3, Stream::Init, place, (0, 0)) as u8).collect();
    let with_magic = [b"redb\x1A\x0A\xA9\x0D\x0A", &garbage[..]].concat();
    for bytes in [vec![0; 9000], garbage, with_magic] {
        fs::write(&file, &bytes).expect("a file");
        let refused = open(&file).err();
        assert!(matches!(refused, Some(Error::Corrupt { .. })), "{refused:?}");
        assert!(fs::read(&file).expect("the file") == bytes, "a refused file is left as it was");
    }
}
