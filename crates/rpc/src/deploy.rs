//! From the deployment file to what serves and what calls.

use std::net::{IpAddr, ToSocketAddrs};

use joust_config::{Deployment, LogFormat};
use joust_core::Shutdown;

use joust_telemetry::Telemetry;

use crate::{Auth, ClientConfig, ClientTls, Error, Limits, Result, ServerConfig, ServerTls};

/// Builds how a service serves on `listen`, `host:port`.
///
/// # Errors
/// [`Error::Deployment`] for an address that others can reach without tokens to ask for.
pub fn server_config(deployment: &Deployment, listen: &str) -> Result<ServerConfig> {
    let auth = match &deployment.auth.tokens_file {
        Some(path) => Auth::Tokens(path.clone()),
        None if is_loopback(listen) => Auth::Open,
        None => {
            return Err(Error::Deployment(format!(
                "auth.tokens_file is missing while {listen} can be reached from other machines; write one, or listen on 127.0.0.1"
            )));
        }
    };
    let tls = &deployment.tls;
    let tls = tls.cert.clone().zip(tls.key.clone()).map(|(certificate, key)| ServerTls {
        certificate,
        key,
        client_ca: tls.ca.clone(),
        client_required: tls.require_client,
    });
    let wanted = &deployment.limits;
    let rate = (wanted.calls_per_s > 0.0).then_some((wanted.calls_per_s, wanted.burst));
    let config = ServerConfig::new(auth, tls);
    let limits = Limits { rate, concurrency: wanted.concurrency as usize, ..config.limits };
    Ok(ServerConfig { limits, ..config })
}

/// Builds how this process calls the service at `address`, a URL.
///
/// # Errors
/// [`Error::Address`] for what is no address, [`Error::Deployment`] for `https` without `tls.ca`.
pub fn client_config(deployment: &Deployment, address: &str) -> Result<ClientConfig> {
    let config = ClientConfig::new(address.parse()?);
    let tls = &deployment.tls;
    let tls = match (config.address.is_tls(), &tls.ca) {
        (false, _) => None,
        (true, None) => {
            return Err(Error::Deployment(format!("tls.ca is missing, and {address} is known by its certificate")));
        }
        (true, Some(ca)) => Some(ClientTls {
            ca: ca.clone(),
            identity: tls.client_cert.clone().zip(tls.client_key.clone()),
            server_name: None,
        }),
    };
    Ok(ClientConfig { tls, token_file: deployment.auth.token_file.clone(), ..config })
}

/// Says what `service` tells about itself, under the name of its worker where it has one, and where.
pub fn telemetry(deployment: &Deployment, service: &str, worker: Option<&str>) -> Telemetry {
    let wanted = &deployment.telemetry;
    Telemetry {
        log_format: match wanted.log_format {
            LogFormat::Text => joust_telemetry::LogFormat::Plain,
            LogFormat::Json => joust_telemetry::LogFormat::Json,
        },
        service: service.to_owned(),
        worker: worker.map(str::to_owned),
        otlp_endpoint: wanted.otlp_endpoint.clone(),
        metrics: deployment.listen.metrics.clone(),
        capture_content: wanted.capture_content,
    }
}

/// Stops at the first Ctrl-C or SIGTERM, and ends the process at the second one. Needs a tokio runtime.
pub fn stop_on_signal(shutdown: Shutdown) {
    tokio::spawn(async move {
        signal().await;
        shutdown.trigger();
        signal().await;
        std::process::exit(130);
    });
}

async fn signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

fn is_loopback(listen: &str) -> bool {
    let found =
        listen.to_socket_addrs().map(|addresses| addresses.map(|address| address.ip()).collect::<Vec<IpAddr>>());
    found.is_ok_and(|ips| !ips.is_empty() && ips.iter().all(IpAddr::is_loopback))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_others_reach_needs_tokens() {
        let mut deployment = Deployment::default();
        let refusal = server_config(&deployment, "0.0.0.0:7700").expect_err("open to all").to_string();
        assert!(refusal.contains("auth.tokens_file is missing while 0.0.0.0:7700"), "{refusal}");
        assert_eq!(server_config(&deployment, "127.0.0.1:0").expect("alone").auth, Auth::Open);
        deployment.auth.tokens_file = Some("tokens.toml".into());
        assert_eq!(
            server_config(&deployment, "0.0.0.0:0").expect("with tokens").auth,
            Auth::Tokens("tokens.toml".into())
        );
    }

    #[test]
    fn calls_are_limited_as_the_file_says() {
        let mut deployment = Deployment::default();
        let limits = |deployment: &Deployment| server_config(deployment, "127.0.0.1:0").expect("alone").limits;
        assert_eq!((limits(&deployment).rate, limits(&deployment).concurrency), (Some((1000.0, 2000)), 1024));
        (deployment.limits.calls_per_s, deployment.limits.concurrency) = (0.0, 7);
        assert_eq!((limits(&deployment).rate, limits(&deployment).concurrency), (None, 7));
    }

    #[test]
    fn https_needs_an_authority() {
        let mut deployment = Deployment::default();
        assert!(client_config(&deployment, "http://a:1").expect("plain").tls.is_none());
        assert!(client_config(&deployment, "https://a:1").is_err());
        deployment.tls.ca = Some("ca.pem".into());
        assert!(client_config(&deployment, "https://a:1").expect("known").tls.is_some());
    }
}
