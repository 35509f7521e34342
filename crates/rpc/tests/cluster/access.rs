//! Who is let in: certificates, tokens, scopes, rates.

use joust_proto::{Reason, judge::v1::ListJudgesRequest, rollout::v1 as rollout};
use joust_rpc::{Auth, Caller, ClientConfig, ServerConfig, sized::rollout_client};
use tonic::{Code, Status};

use crate::common::{Folder, Running, judge_of, notes, plain, score, until};

/// A server with TLS and the tokens `reader`, `user`, `worker` and `boss`, each with the secret of its name, and one that has expired.
async fn guarded(folder: &Folder, client_required: bool) -> Running {
    let tokens = folder.tokens(&[
        ("reader", "read", "reader", ""),
        ("user", "submit", "user", "expires = 2999-01-01T00:00:00Z"),
        ("worker", "worker", "worker", ""),
        ("boss", "admin", "boss", ""),
        ("old", "admin", "old", "expires = 2020-01-01T00:00:00Z"),
    ]);
    let tls = Some(folder.files.server(client_required));
    Running::start(ServerConfig { tls, auth: Auth::Tokens(tokens), ..plain() }).await
}

fn with(folder: &Folder, server: &Running, token: &str, certificate: bool) -> ClientConfig {
    let mut tls = folder.files.client();
    if !certificate {
        tls.identity = None;
    }
    let token_file = (!token.is_empty()).then(|| folder.token(token));
    ClientConfig { tls: Some(tls), token_file, ..server.client_tls() }
}

fn reason(status: &Status) -> (Code, Option<Reason>) {
    (status.code(), Reason::of(status))
}

#[tokio::test]
async fn a_connection_without_a_client_certificate_is_refused() {
    let folder = Folder::new();
    let server = guarded(&folder, true).await;
    let mut config = with(&folder, &server, "user", false);
    config.retry.attempts = 1;
    let refused = judge_of(config).score(score("")).await.expect_err("no certificate");
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    let answered = judge_of(with(&folder, &server, "user", true)).score(score("")).await.expect("a certificate");
    assert_eq!(notes(answered)[..2], ["judge", "user"]);
}

#[tokio::test]
async fn a_server_of_another_authority_and_one_without_tls_are_refused() {
    let (folder, other) = (Folder::new(), Folder::new());
    let server = guarded(&folder, false).await;
    let mut config = with(&folder, &server, "user", false);
    config.tls.as_mut().expect("tls").ca = other.path("ca.pem");
    config.retry.attempts = 1;
    let refused = judge_of(config).score(score("")).await.expect_err("another authority");
    assert!(refused.code() == Code::Unavailable && refused.message().contains("invalid peer certificate"), "{refused}");
    let plain = Running::start(plain()).await;
    let mut config = with(&folder, &plain, "user", false);
    config.retry.attempts = 1;
    let refused = judge_of(config).score(score("")).await.expect_err("no TLS");
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    assert!(Caller::new(ClientConfig { tls: None, ..server.client_tls() }).is_err(), "https without an authority");
}

#[tokio::test]
async fn tokens_decide_with_details() {
    let folder = Folder::new();
    let server = guarded(&folder, false).await;
    for (token, wanted) in [
        ("", (Code::Unauthenticated, Some(Reason::TokenMissing))),
        ("stranger", (Code::Unauthenticated, Some(Reason::TokenUnknown))),
        ("old", (Code::Unauthenticated, Some(Reason::TokenExpired))),
        ("reader", (Code::PermissionDenied, Some(Reason::ScopeMissing))),
        ("worker", (Code::PermissionDenied, Some(Reason::ScopeMissing))),
    ] {
        let status = judge_of(with(&folder, &server, token, true)).score(score("")).await.expect_err(token);
        assert_eq!(reason(&status), wanted, "{token}: {status}");
        assert!(!format!("{status:?}").contains("stranger"), "{status:?}");
    }
    for token in ["user", "boss"] {
        assert!(judge_of(with(&folder, &server, token, false)).score(score("")).await.is_ok(), "{token}");
    }
    assert!(judge_of(with(&folder, &server, "reader", false)).list_judges(list()).await.is_ok());
    assert_eq!(server.seen.calls.load(std::sync::atomic::Ordering::SeqCst), 2, "no refused call reached the handler");
}

fn list() -> joust_proto::judge::v1::ListJudgesRequest {
    Default::default()
}

#[tokio::test]
async fn calls_of_workers_need_their_token_and_a_certificate() {
    let folder = Folder::new();
    let server = guarded(&folder, false).await;
    let load = |token, certificate| {
        let mut client = rollout_client(Caller::new(with(&folder, &server, token, certificate)).expect("a caller"));
        async move { client.load_models(rollout::LoadModelsRequest::default()).await }
    };
    assert!(load("worker", true).await.is_ok());
    let status = load("worker", false).await.expect_err("no certificate");
    assert_eq!(reason(&status), (Code::Unauthenticated, Some(Reason::CertificateMissing)), "{status}");
    let status = load("user", true).await.expect_err("a user");
    assert_eq!(reason(&status), (Code::PermissionDenied, Some(Reason::ScopeMissing)), "{status}");
}

#[tokio::test]
async fn tokens_rotate_without_a_restart() {
    let folder = Folder::new();
    let server = guarded(&folder, false).await;
    let client = judge_of(with(&folder, &server, "user", false));
    assert!(client.clone().score(score("")).await.is_ok());
    folder.tokens(&[("user", "submit", "next", "")]);
    let code = async || client.clone().score(score("")).await.map_or_else(|status| status.code(), |_| Code::Ok);
    until("the old token is refused", async || code().await == Code::Unauthenticated).await;
    // The client's file follows as well.
    std::fs::write(folder.path("user.token"), "next").expect("writable");
    until("the new token is taken", async || code().await == Code::Ok).await;
}

#[tokio::test]
async fn a_token_that_calls_too_often_is_told_when_to_come_back() {
    let folder = Folder::new();
    let auth = Auth::Tokens(folder.tokens(&[("user", "submit", "user", "")]));
    let mut config = ServerConfig { auth, ..plain() };
    config.limits.rate = Some((0.01, 2));
    let server = Running::start(config).await;
    let mut client = judge_of(ClientConfig { token_file: Some(folder.token("user")), ..server.client() });
    for _ in 0..2 {
        client.score(score("")).await.expect("within the burst");
    }
    // The pause would outlast the deadline, so the caller hears of it at once.
    let status = client.score(score("")).await.expect_err("too many");
    assert_eq!(reason(&status), (Code::ResourceExhausted, Some(Reason::RateLimited)));
    let delay = tonic_types::StatusExt::get_details_retry_info(&status).and_then(|info| info.retry_delay);
    assert!(delay.is_some_and(|delay| delay.as_secs() > 60), "{delay:?}");
}

#[tokio::test]
async fn workers_may_call_as_often_as_they_need() {
    let folder = Folder::new();
    let auth = Auth::Tokens(folder.tokens(&[("user", "read", "user", ""), ("worker", "worker", "worker", "")]));
    let mut config = ServerConfig { auth, ..plain() };
    config.limits.rate = Some((0.01, 2));
    let server = Running::start(config).await;
    for (token, last) in [("user", Code::ResourceExhausted), ("worker", Code::Ok)] {
        let mut client = judge_of(ClientConfig { token_file: Some(folder.token(token)), ..server.client() });
        let mut codes = Vec::new();
        for _ in 0..3 {
            codes.push(
                client
                    .list_judges(ListJudgesRequest::default())
                    .await
                    .map_or_else(|status| status.code(), |_| Code::Ok),
            );
        }
        assert_eq!(codes, [Code::Ok, Code::Ok, last], "{token}");
    }
}
