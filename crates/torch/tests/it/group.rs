//! Collectives between processes: this test starts itself again, once for each rank.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use joust_testkit::ranks::{Rank, TIMEOUT, run, serve, tell};
use joust_torch::{Error, Join, Pending, ProcessGroup, Reduce, Result, Store};
use tch::{Device, Kind, Tensor};

fn values(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.to_kind(Kind::Double).view([-1])).expect("numbers")
}

#[test]
#[ignore = "a rank of the other tests"]
fn a_rank() {
    let Some(rank) = Rank::of_this_process() else { return };
    let task = rank.task.as_str();
    let timeout = if task == "hang" { Duration::from_secs(2) } else { TIMEOUT };
    let identity = if task == "stranger" { format!("run {}", rank.rank) } else { "run".to_owned() };
    let group = match ProcessGroup::join(rank.store(), Join { identity, timeout, ..rank.join() }) {
        Ok(group) => group,
        Err(error) => return tell(error),
    };
    match task {
        "collect" => collect(&group).expect("every collective works"),
        "many" => many(&group).expect("every collective works"),
        "bytes" => bytes(&group).expect("every collective works"),
        "hang" if rank.rank == 0 => {
            // Takes part in nothing, alive, until the others have given up.
            group.store().wait("given up", TIMEOUT).expect("the other gives up");
            tell("stayed");
        }
        "hang" => {
            tell_error(|| group.barrier());
            group.store().set("given up", b"").expect("the store");
        }
        "killed" => killed(&group),
        "aborted" => aborted(&group),
        other => tell(format!("joined for {other}")),
    }
}

fn tell_error(collective: impl FnOnce() -> Result<()>) {
    let began = Instant::now();
    match collective() {
        Ok(()) => tell("no error"),
        Err(Error::Timeout { operation, seconds }) => tell(format!("timeout {operation} {seconds}")),
        Err(Error::PeerLost { operation, .. }) => tell(format!("lost {operation} {}", began.elapsed().as_secs())),
        Err(error) => tell(format!("other {error}")),
    }
}

fn collect(group: &ProcessGroup) -> Result<()> {
    let (rank, size) = (group.rank() as i64, group.size() as i64);
    for kind in [Kind::Float, Kind::Double, Kind::Int64] {
        let own = || Tensor::arange(4, (kind, Device::Cpu)) + rank;
        let summed = group.all_reduce(&own(), Reduce::Sum)?.wait()?;
        let expected = |k: f64| (0..size).map(|rank| k + rank as f64).sum::<f64>();
        assert_eq!(values(&summed), [0.0, 1.0, 2.0, 3.0].map(expected));
        assert_eq!(values(&group.all_reduce(&own(), Reduce::Max)?.wait()?)[0], (size - 1) as f64);
        assert_eq!(values(&group.all_reduce(&own(), Reduce::Min)?.wait()?)[0], 0.0);
    }
    let table = Tensor::arange(2 * size * 3, (Kind::Float, Device::Cpu)).view([2 * size, 3]) * (rank + 1);
    let part = group.reduce_scatter(&table)?.wait()?;
    let factor = (size * (size + 1) / 2) as f64;
    let expected: Vec<f64> = (0..6).map(|k| factor * (rank * 6 + k) as f64).collect();
    assert_eq!((part.size(), values(&part)), (vec![2, 3], expected));
    let stacked = group.all_gather(&Tensor::full([1, 2], rank, (Kind::Float, Device::Cpu)))?.wait()?;
    let expected: Vec<f64> = (0..size).flat_map(|rank| [rank as f64; 2]).collect();
    assert_eq!((stacked.size(), values(&stacked)), (vec![size, 2], expected));
    let given = group.broadcast(&Tensor::from_slice(&[rank as f64 + 0.5]), size as usize - 1)?.wait()?;
    assert_eq!(values(&given), [size as f64 - 0.5]);
    group.barrier()?;
    let bent = Tensor::arange(4, (Kind::Float, Device::Cpu)).view([2, 2]).transpose(0, 1);
    assert!(matches!(group.all_reduce(&bent, Reduce::Sum), Err(Error::Layout { .. })));
    let odd = Tensor::zeros([2 * size + 1], (Kind::Float, Device::Cpu));
    assert!(size == 1 || matches!(group.reduce_scatter(&odd), Err(Error::Layout { .. })));
    tell("ok");
    Ok(())
}

/// Begins many before the first is waited for, as a backward pass does.
fn many(group: &ProcessGroup) -> Result<()> {
    let tensors: Vec<Tensor> =
        (0..50).map(|k| Tensor::full([1000 + k], group.rank() as i64 + k, (Kind::Float, Device::Cpu))).collect();
    let pending: Vec<Pending> =
        tensors.iter().map(|tensor| group.all_reduce(tensor, Reduce::Sum)).collect::<Result<_>>()?;
    for (k, pending) in pending.into_iter().enumerate() {
        let expected: usize = (0..group.size()).map(|rank| rank + k).sum();
        let found = pending.wait()?;
        assert_eq!((found.min().double_value(&[]), found.max().double_value(&[])), (expected as f64, expected as f64));
    }
    tell("ok");
    Ok(())
}

fn bytes(group: &ProcessGroup) -> Result<()> {
    let (rank, size) = (group.rank(), group.size());
    let own = vec![rank as u8; 3 * rank];
    let all = group.all_gather_bytes(&own)?;
    assert_eq!(all, (0..size).map(|rank| vec![rank as u8; 3 * rank]).collect::<Vec<_>>());
    assert_eq!(group.all_gather_bytes(&[])?, vec![Vec::<u8>::new(); size]);
    let text = if rank == 0 { b"the step".as_slice() } else { b"" };
    assert_eq!(group.broadcast_bytes(text, 0)?, b"the step");
    assert_eq!(group.broadcast_bytes(b"", 0)?, b"");
    tell("ok");
    Ok(())
}

/// The last rank ends without a word in the middle of a sum.
fn killed(group: &ProcessGroup) {
    group.barrier().expect("all are here");
    if group.rank() == group.size() - 1 {
        tell("gone");
        std::process::abort();
    }
    let large = Tensor::ones([25_000_000], (Kind::Float, Device::Cpu));
    tell_error(|| group.all_reduce(&large, Reduce::Sum).and_then(Pending::wait).map(drop));
    // Lives on until all have failed: the end of this process must not be what tells the others.
    let (store, deadline) = (group.store(), Instant::now() + TIMEOUT);
    store.add("failed", 1).expect("the store");
    while store.add("failed", 0).expect("the store") < group.size() as i64 - 1 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5)); // polls the others
    }
}

/// Another thread of rank 0 gives up while all others wait for rank 0.
fn aborted(group: &ProcessGroup) {
    group.barrier().expect("all are here");
    if group.rank() == 0 {
        group.aborter().abort().expect("it aborts");
    }
    tell_error(|| group.barrier());
}

#[test]
fn every_collective_agrees_on_one_two_and_four_ranks() {
    for size in [1, 2, 4] {
        for task in ["collect", "many", "bytes"] {
            assert_eq!(run(task, size), vec!["ok"; size], "{task} on {size}");
        }
    }
}

#[test]
fn a_rank_that_ends_is_an_error_on_all_others_within_five_seconds() {
    for size in [2, 4] {
        let told = run("killed", size);
        assert_eq!(told[size - 1], "gone");
        for text in &told[..size - 1] {
            let seconds: u64 = text.strip_prefix("lost all_reduce ").and_then(|s| s.parse().ok()).expect(text);
            assert!(seconds < 5, "{text}");
        }
    }
}

#[test]
fn a_rank_that_hangs_is_a_timeout() {
    assert_eq!(run("hang", 2), ["stayed", "timeout barrier 2"]);
}

#[test]
fn an_abort_ends_the_wait_of_all() {
    for text in run("aborted", 4) {
        assert!(text.starts_with("lost barrier"), "{text}");
    }
}

#[test]
fn who_does_not_join_is_named() {
    let store = Arc::new(serve());
    let join = |rank, size| Join {
        rank,
        size,
        name: "waiting".into(),
        identity: String::new(),
        host: "127.0.0.1".into(),
        timeout: Duration::from_millis(200),
    };
    let Err(error) = ProcessGroup::join(store.clone(), join(1, 4)) else { panic!("nobody came") };
    assert!(error.to_string().starts_with("of 4 ranks [0, 2, 3] did not join within 0.2 s"), "{error}");
    assert!(matches!(ProcessGroup::join(store, join(4, 4)), Err(Error::Rank { rank: 4, size: 4 })));
}

#[test]
fn a_rank_of_another_run_is_refused_by_all() {
    for (rank, text) in run("stranger", 2).into_iter().enumerate() {
        let other = 1 - rank;
        assert!(text.starts_with(&format!("rank {other} comes with \"run {other}\"")), "{text}");
    }
}

#[test]
fn the_store_keeps_counts_and_tells_what_is_not_there() {
    let store = serve();
    let other = Store::connect(store.address(), TIMEOUT).expect("it is served");
    assert_eq!(other.get("a").expect("answered"), None);
    store.set("a", b"\0one").expect("written");
    assert_eq!(other.get("a").expect("answered").as_deref(), Some(b"\0one".as_slice()));
    assert_eq!([store.add("n", 2).expect("added"), other.add("n", 3).expect("added")], [2, 5]);
    assert!(matches!(other.wait("b", Duration::from_millis(30)), Err(Error::Timeout { .. })));
    assert!(matches!(store.set("a\0b", b""), Err(Error::Key { .. })));
    let nobody = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    assert!(matches!(Store::connect(nobody, Duration::from_millis(300)), Err(Error::Cpp { .. })));
}
