//! What is logged, at every level and by every crate below: alone in its process, since it listens to all of it.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
};

use joust_proto::common::v1::prompt::Kind;
use joust_rpc::{Auth, ClientConfig, ServerConfig};

#[allow(dead_code, reason = "shared with the cluster tests, which need more of it")]
#[path = "cluster/common.rs"]
mod common;

use common::{Folder, Running, judge_of, plain, score};

/// Everything that is logged, as text.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_token_and_no_text_is_logged_at_any_level() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone());
    tracing::subscriber::set_global_default(subscriber.finish()).expect("the only one");
    let folder = Folder::new();
    let tls = Some(folder.files.server(true));
    let auth = Auth::Tokens(folder.tokens(&[("user", "submit", "known-token", "")]));
    let server = Running::start(ServerConfig { tls, auth, ..plain() }).await;
    for (token, how) in [("known-token", "secret-judge"), ("stranger-token", "secret-judge"), ("known-token", "broken")]
    {
        let mut request = score(how);
        request.prompt.as_mut().expect("a prompt").kind = Some(Kind::Text("private words".into()));
        let (tls, token_file) = (Some(folder.files.client()), Some(folder.token(token)));
        let answered = judge_of(ClientConfig { tls, token_file, ..server.client_tls() }).score(request).await;
        assert_eq!(answered.is_ok(), (token, how) == ("known-token", "secret-judge"), "{answered:?}");
    }
    let log = String::from_utf8_lossy(&log.0.lock().expect("no panic")).into_owned();
    assert!(log.contains("JudgeService/Score") && log.contains("call failed"), "the test hears what is logged");
    for secret in ["private words", "secret-judge", "known-token", "stranger-token", "Bearer"] {
        let line = log.lines().find(|line| line.contains(secret));
        assert!(line.is_none(), "{secret:?} was logged: {line:?}");
    }
}
