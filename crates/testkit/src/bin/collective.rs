//! Times an all-reduce between local ranks through joust's face of c10d.
//!
//! usage: `collective MEGABYTES [RANKS]`
//! prints: joust allreduce_ms=.., the median of ten on the slowest rank

use std::{
    env,
    error::Error,
    net::{Ipv4Addr, SocketAddr},
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use joust_torch::{Join, ProcessGroup, Reduce, Store};
use tch::{Device, Kind, Tensor};

const TIMEOUT: Duration = Duration::from_secs(60);

fn rank(megabytes: i64, place: &str) -> Result<(), Box<dyn Error>> {
    let mut parts = place.split('|');
    let mut next = || parts.next().ok_or("rank|ranks|address");
    let (rank, size, address) = (next()?.parse()?, next()?.parse()?, next()?.parse()?);
    tch::set_num_threads(1);
    let join =
        Join { rank, size, name: "bench".into(), identity: String::new(), host: "127.0.0.1".into(), timeout: TIMEOUT };
    let group = ProcessGroup::join(Arc::new(Store::connect(address, TIMEOUT)?), join)?;
    let values = Tensor::ones([megabytes * 250_000], (Kind::Float, Device::Cpu));
    let mut times = Vec::new();
    for round in 0..12 {
        group.barrier()?;
        let began = Instant::now();
        let _sum = group.all_reduce(&values, Reduce::Max)?.wait()?;
        if round > 1 {
            times.push(began.elapsed().as_secs_f64() * 1e3);
        }
    }
    times.sort_by(f64::total_cmp);
    println!("{}", f64::midpoint(times[4], times[5]));
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (megabytes, size) = match arguments.as_slice() {
        [megabytes] => (megabytes, 2),
        [megabytes, size] => (megabytes, size.parse()?),
        _ => return Err("usage: collective MEGABYTES [RANKS]".into()),
    };
    if let Ok(place) = env::var("JOUST_COLLECTIVE_RANK") {
        return rank(megabytes.parse()?, &place);
    }
    let store = Store::serve(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), TIMEOUT)?;
    let start = |rank: usize| {
        Command::new(env::current_exe()?)
            .arg(megabytes)
            .env("JOUST_COLLECTIVE_RANK", format!("{rank}|{size}|{}", store.address()))
            .stdout(Stdio::piped())
            .spawn()
    };
    let ranks = (0..size).map(start).collect::<Result<Vec<_>, _>>()?;
    let mut slowest: f64 = 0.0;
    for rank in ranks {
        let told = String::from_utf8(rank.wait_with_output()?.stdout)?;
        slowest = slowest.max(told.trim().parse().map_err(|_| format!("a rank told {told:?}"))?);
    }
    println!("joust allreduce_ms={slowest:.1}");
    Ok(())
}
