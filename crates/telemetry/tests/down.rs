//! An endpoint that is not there, or that never answers: work goes on, and it is said once. Each in a process of its own, whose standard
//! error is read.

use std::{
    net::TcpListener,
    process::Command,
    time::{Duration, Instant},
};

use joust_telemetry::{Telemetry, Work, init, instruments};

/// Names the endpoint of a process that these tests start.
const ENDPOINT: &str = "JOUST_TEST_ENDPOINT";
/// Spans: ten times what waits at most.
const SPANS: u64 = 20_480;

/// What such a process does: it works, and prints how long that took, in ms.
#[test]
fn work_under_an_endpoint() {
    let Ok(endpoint) = std::env::var(ENDPOINT) else { return };
    let guard = init(Telemetry { service: "joust-test".into(), otlp_endpoint: Some(endpoint), ..Telemetry::default() });
    let guard = guard.expect("an endpoint that is not there is no error");
    let began = Instant::now();
    for position in 0..SPANS {
        let work = Work::prompt("stories", position);
        assert!(work.traceparent().is_some(), "contexts go on without the endpoint");
        work.span().in_scope(|| tracing::warn!(target: "joust_test", "a line"));
        instruments::prompts_put("stories", 1);
    }
    println!("worked_ms={}", began.elapsed().as_millis());
    guard.flush();
    guard.flush();
    drop(guard);
}

/// Returns standard error and how long the work took.
fn child(endpoint: &str) -> (String, Duration) {
    let mut command = Command::new(std::env::current_exe().expect("this test"));
    command.args(["--exact", "work_under_an_endpoint", "--nocapture"]).env(ENDPOINT, endpoint);
    let output = command.env("JOUST_LOG", "joust_telemetry=info,opentelemetry=warn").output().expect("run");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr).into_owned());
    assert!(output.status.success(), "{out}{err}");
    let worked = out.split("worked_ms=").nth(1).and_then(|rest| rest.lines().next()).expect("a time");
    (err, Duration::from_millis(worked.parse().expect("a number")))
}

fn told_once(err: &str) {
    let told: Vec<&str> = err.lines().filter(|line| line.contains("telemetry is lost")).collect();
    assert_eq!(told.len(), 1, "{err}");
    assert!(told[0].contains("endpoint=") && told[0].contains("telemetry.otlp_endpoint"), "{err}");
    assert_eq!(err.lines().count(), 1, "nothing else is said: {err}");
}

#[test]
fn an_endpoint_that_is_not_there_is_told_once() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    told_once(&child(&format!("http://{address}")).0);
}

#[test]
fn work_does_not_wait_for_an_endpoint_that_never_answers() {
    // The system takes connections for a listener that nobody serves.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let began = Instant::now();
    let (err, worked) = child(&format!("http://{}", listener.local_addr().expect("an address")));
    told_once(&err);
    // A batch waits 5 s for its answer; one that work waited for would show.
    assert!(worked < Duration::from_secs(4), "{SPANS} spans took {worked:?}");
    assert!(began.elapsed() < Duration::from_secs(60), "the end waited for {:?}", began.elapsed());
}
