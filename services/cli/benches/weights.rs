//! Weights of the size of `smol` (270 MB) from a learner to a worker on the same machine, checksum and files included, beside a bare gRPC
//! stream of as many bytes with the same TLS: `cargo bench -p joust --bench weights`.

use std::{
    path::Path,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use joust_cli::cluster::transfer::{Wanted, fetch};
use joust_core::{ModelRef, RunId, Shutdown};
use joust_learner::{
    Outlet, Part,
    server::{Server as Learner, Service, Serving},
};
use joust_proto::learner::v1::{
    self as wire,
    fetch_weights_response::Kind,
    learner_service_client::LearnerServiceClient,
    learner_service_server::{LearnerService, LearnerServiceServer},
};
use joust_queue::{Settings, open_memory};
use joust_rpc::{
    Auth, Caller, ClientConfig, ServerConfig, Services, certs, new_token, serve,
    sized::{learner_client, learner_server},
};
use tokio::{net::TcpListener, sync::watch};
use tokio_stream::{Empty, Stream};
use tonic::{
    Request, Response, Status,
    transport::{
        Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Server, ServerTlsConfig, server::TcpIncoming,
    },
};

const BYTES: usize = 270_000_000;
const PIECE: usize = 1 << 20;
const ROUNDS: usize = 5;

/// Sends bytes and nothing else.
struct Bare;

type Pieces = Pin<Box<dyn Stream<Item = Result<wire::FetchWeightsResponse, Status>> + Send>>;

fn none<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("only bytes are sent"))
}

#[tonic::async_trait]
impl LearnerService for Bare {
    type WatchModelsStream = Empty<Result<wire::WatchModelsResponse, Status>>;
    type FetchWeightsStream = Pieces;

    async fn put_examples(
        &self,
        _: Request<wire::PutExamplesRequest>,
    ) -> Result<Response<wire::PutExamplesResponse>, Status> {
        none()
    }

    async fn train_step(
        &self,
        _: Request<wire::TrainStepRequest>,
    ) -> Result<Response<wire::TrainStepResponse>, Status> {
        none()
    }

    async fn watch_models(
        &self,
        _: Request<wire::WatchModelsRequest>,
    ) -> Result<Response<Self::WatchModelsStream>, Status> {
        none()
    }

    async fn fetch_weights(
        &self,
        _: Request<wire::FetchWeightsRequest>,
    ) -> Result<Response<Self::FetchWeightsStream>, Status> {
        let pieces = (0..BYTES.div_ceil(PIECE)).map(|index| {
            let offset_bytes = (index * PIECE) as u64;
            let data = vec![index as u8; PIECE.min(BYTES - index * PIECE)].into();
            Ok(wire::FetchWeightsResponse { kind: Some(Kind::Chunk(wire::WeightsChunk { offset_bytes, data })) })
        });
        Ok(Response::new(Box::pin(tokio_stream::iter(pieces))))
    }

    async fn save_checkpoint(
        &self,
        _: Request<wire::SaveCheckpointRequest>,
    ) -> Result<Response<wire::SaveCheckpointResponse>, Status> {
        none()
    }

    async fn get_status(
        &self,
        _: Request<wire::GetStatusRequest>,
    ) -> Result<Response<wire::GetStatusResponse>, Status> {
        none()
    }
}

async fn bare(folder: &Path) -> LearnerServiceClient<Channel> {
    let pem = |name: &str| std::fs::read(folder.join(name)).expect("made before");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(pem("server.pem"), pem("server.key")))
        .client_ca_root(Certificate::from_pem(pem("ca.pem")));
    let server = Server::builder().tls_config(tls).expect("valid").add_service(LearnerServiceServer::new(Bare));
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true))));
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(pem("ca.pem")))
        .identity(Identity::from_pem(pem("client.pem"), pem("client.key")));
    let endpoint = Endpoint::from_shared(format!("https://localhost:{port}")).expect("an address");
    LearnerServiceClient::new(endpoint.tls_config(tls).expect("valid").connect().await.expect("connected"))
}

/// Serves a learner whose outlet holds a model of random bytes.
async fn learner(folder: &Path, files: &certs::Files, run: &RunId) -> (LearnerServiceClient<Caller>, ModelRef) {
    let (outlet, model) = (Outlet::open(&folder.join("outlet")).expect("a folder"), model());
    let put = outlet.put_files(Part::Policy, &model, |staging| {
        let mut bytes = vec![0u8; BYTES];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        std::fs::write(staging.join("model.safetensors"), bytes).expect("written");
        Ok(())
    });
    put.expect("there is room");
    let server = Learner::new("learner");
    server.serve(Some(Serving {
        run: run.clone(),
        queue: open_memory(Settings::default()).expect("a queue"),
        outlet: Arc::new(outlet),
        progress: watch::channel(None).1,
        checkpoints: folder.join("checkpoints"),
        ranks: 1,
        requests: tokio::sync::mpsc::channel(1).0,
        by_hand: false,
    }));
    let token = new_token();
    let (tokens, token_file) = (folder.join("tokens.toml"), folder.join("token"));
    let entry = format!("[[token]]\nname = \"bench\"\nscope = \"admin\"\nsha256 = \"{}\"\n", token.sha256());
    std::fs::write(&tokens, entry).expect("writable");
    std::fs::write(&token_file, token.secret()).expect("writable");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let config = ServerConfig::new(Auth::Tokens(tokens), Some(files.server(true)));
    let services = Services::default().with(learner_server(Service(server)));
    tokio::spawn(serve(listener, config, services, Shutdown::default()));
    let mut config = ClientConfig::new(format!("https://localhost:{port}").parse().expect("an address"));
    (config.tls, config.token_file) = (Some(files.client()), Some(token_file));
    (learner_client(Caller::new(config).expect("a caller")), model)
}

fn model() -> ModelRef {
    ModelRef { generation: 1, version: 1, hash: "0".repeat(64) }
}

async fn drain(client: &mut LearnerServiceClient<Channel>) -> Duration {
    let began = Instant::now();
    let mut pieces = client.fetch_weights(wire::FetchWeightsRequest::default()).await.expect("served").into_inner();
    let mut done = 0;
    while let Some(piece) = pieces.message().await.expect("served") {
        if let Some(Kind::Chunk(chunk)) = piece.kind {
            done += chunk.data.len();
        }
    }
    assert_eq!(done, BYTES);
    began.elapsed()
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let folder = tempfile::tempdir().expect("a folder");
    let files = certs::make(folder.path(), &["localhost".into()]).expect("certificates");
    let run = RunId::new("bench").expect("a name");
    let mut bare = bare(folder.path()).await;
    let (mut own, model) = learner(folder.path(), &files, &run).await;
    let target = folder.path().join("fetched");
    let (mut own_times, mut bare_times) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let peer = drain(&mut bare).await;
        let began = Instant::now();
        let wanted = Wanted { run: &run, part: wire::ModelPart::Policy, model: Some(&model), judge: "" };
        let fetched = fetch(&mut own, wanted, (&target, None)).await.expect("fetched");
        assert_eq!(fetched.bytes as usize, BYTES);
        // The first round warms both up.
        if round > 0 {
            own_times.push(began.elapsed());
            bare_times.push(peer);
        }
    }
    let median = |times: &mut Vec<Duration>| {
        times.sort_unstable();
        times[times.len() / 2].as_secs_f64()
    };
    let (own, peer) = (median(&mut own_times), median(&mut bare_times));
    let rate = |seconds: f64| BYTES as f64 / 1e6 / seconds;
    println!(
        "weights of 270 MB to a worker mb_per_s={:.0} bare_grpc_tls={:.0} share={:.2} (goal 0.50)",
        rate(own),
        rate(peer),
        peer / own
    );
}
