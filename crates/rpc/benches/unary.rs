//! What the kit costs: an empty unary call with mutual TLS, token, deadline, trace and retry, beside bare tonic with the same TLS in the
//! same process: `cargo bench -p joust-rpc`.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use joust_core::Shutdown;
use joust_proto::rollout::v1::{
    DrainRequest, DrainResponse, GenerateRequest, GenerateResponse, GetStatusRequest, GetStatusResponse,
    LoadModelsRequest, LoadModelsResponse,
    rollout_service_client::RolloutServiceClient,
    rollout_service_server::{RolloutService, RolloutServiceServer},
};
use joust_rpc::{
    Auth, Caller, ClientConfig, ServerConfig, Services, certs, new_token, serve,
    sized::{rollout_client, rollout_server},
};
use tokio::net::TcpListener;
use tokio_stream::Empty;
use tonic::{
    Request, Response, Status,
    body::Body,
    client::GrpcService,
    codegen::{Bytes, StdError},
    transport::{
        Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Server, ServerTlsConfig, server::TcpIncoming,
    },
};

const ROUNDS: usize = 20;
const CALLS: usize = 500;

struct Idle;

#[tonic::async_trait]
impl RolloutService for Idle {
    type GenerateStream = Empty<Result<GenerateResponse, Status>>;

    async fn generate(&self, _: Request<GenerateRequest>) -> Result<Response<Self::GenerateStream>, Status> {
        Ok(Response::new(tokio_stream::empty()))
    }

    async fn load_models(&self, _: Request<LoadModelsRequest>) -> Result<Response<LoadModelsResponse>, Status> {
        Ok(Response::new(LoadModelsResponse::default()))
    }

    async fn get_status(&self, _: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        Ok(Response::new(GetStatusResponse::default()))
    }

    async fn drain(&self, _: Request<DrainRequest>) -> Result<Response<DrainResponse>, Status> {
        Ok(Response::new(DrainResponse::default()))
    }
}

async fn bare(folder: &Path) -> RolloutServiceClient<Channel> {
    let pem = |name: &str| std::fs::read(folder.join(name)).expect("made before");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(pem("server.pem"), pem("server.key")))
        .client_ca_root(Certificate::from_pem(pem("ca.pem")));
    let server = Server::builder().tls_config(tls).expect("valid").add_service(RolloutServiceServer::new(Idle));
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true))));
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(pem("ca.pem")))
        .identity(Identity::from_pem(pem("client.pem"), pem("client.key")));
    let endpoint = Endpoint::from_shared(format!("https://localhost:{port}")).expect("an address");
    RolloutServiceClient::new(endpoint.tls_config(tls).expect("valid").connect().await.expect("connected"))
}

async fn kit(folder: &Path, files: &certs::Files) -> RolloutServiceClient<Caller> {
    let token = new_token();
    let (tokens, token_file) = (folder.join("tokens.toml"), folder.join("token"));
    let entry = format!("[[token]]\nname = \"bench\"\nscope = \"admin\"\nsha256 = \"{}\"\n", token.sha256());
    std::fs::write(&tokens, entry).expect("writable");
    std::fs::write(&token_file, token.secret()).expect("writable");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let config = ServerConfig::new(Auth::Tokens(tokens), Some(files.server(true)));
    tokio::spawn(serve(listener, config, Services::default().with(rollout_server(Idle)), Shutdown::default()));
    let mut config = ClientConfig::new(format!("https://localhost:{port}").parse().expect("an address"));
    (config.tls, config.token_file) = (Some(files.client()), Some(token_file));
    rollout_client(Caller::new(config).expect("a caller"))
}

/// Times calls one after the other.
async fn times<T>(client: &mut RolloutServiceClient<T>, out: &mut Vec<Duration>)
where
    T: GrpcService<Body>,
    T::Error: Into<StdError>,
    T::ResponseBody: http_body::Body<Data = Bytes> + Send + 'static,
    <T::ResponseBody as http_body::Body>::Error: Into<StdError> + Send,
{
    for _ in 0..CALLS {
        let began = Instant::now();
        client.get_status(GetStatusRequest::default()).await.expect("served");
        out.push(began.elapsed());
    }
}

fn quantile(times: &mut [Duration], share: f64) -> Duration {
    times.sort_unstable();
    times[(times.len() as f64 * share) as usize]
}

#[tokio::main]
async fn main() {
    let folder = tempfile::tempdir().expect("a folder");
    let files = certs::make(folder.path(), &["localhost".into()]).expect("certificates");
    let (mut bare, mut kit) = (bare(folder.path()).await, kit(folder.path(), &files).await);
    let (mut bare_times, mut kit_times, mut warm) = (Vec::new(), Vec::new(), Vec::new());
    times(&mut bare, &mut warm).await;
    times(&mut kit, &mut warm).await;
    for _ in 0..ROUNDS {
        times(&mut bare, &mut bare_times).await;
        times(&mut kit, &mut kit_times).await;
    }
    let us = |times: &mut [Duration], share| quantile(times, share).as_secs_f64() * 1e6;
    let (own, peer) = (us(&mut kit_times, 0.5), us(&mut bare_times, 0.5));
    println!(
        "empty unary rpc p50_us={own:.0} bare_tonic_tls={peer:.0} ratio={:.2} p99_us={:.0} bare_p99_us={:.0}",
        own / peer,
        us(&mut kit_times, 0.99),
        us(&mut bare_times, 0.99)
    );
}
