//! What a judge worker answers: the judges of the runs that it serves.

use std::{collections::BTreeMap, pin::Pin, sync::Arc, time::Duration};

use joust_core::{Judgement, JudgementValue, Player, RecordId, RunId};
use joust_judges::{Ask, CallContext, Candidate, Judge, JudgeItem};
use joust_proto::{
    Error, Failure, Reason,
    common::v1 as common,
    judge::v1::{self as wire, judge_service_server::JudgeService},
    limits::{MAX_ANSWERS, MAX_ITEMS, MAX_RANKED},
    parse::{choice, counted, page_size, record_id, required, run_id, text},
};
use parking_lot::Mutex;
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status};

/// Items that are judged together, and sent when they are.
const TOGETHER: usize = 64;
/// Longest wait for one call's judgements.
const TIMEOUT: Duration = Duration::from_secs(600);

/// The judges of one run.
#[derive(Clone)]
pub struct Serving {
    /// By name.
    pub judges: BTreeMap<String, Arc<dyn Judge>>,
    /// The one that is meant where none is named.
    pub main: String,
    /// Kind of each, by name.
    pub kinds: BTreeMap<String, String>,
}

/// The handler; the runs that it serves change.
#[derive(Clone, Default)]
pub struct Server(Arc<Mutex<BTreeMap<RunId, Serving>>>);

type Answer<T> = Result<Response<T>, Status>;

impl Server {
    /// Serves a run's judges.
    pub fn serve(&self, run: RunId, serving: Serving) {
        self.0.lock().insert(run, serving);
    }

    /// Serves a run no more.
    pub fn forget(&self, run: &RunId) {
        self.0.lock().remove(run);
    }

    fn serving(&self, run: &str) -> Result<Serving, Status> {
        let runs = self.0.lock();
        let missing = |text: String| Status::from(Failure::new(Reason::UnknownRun, text));
        if run.is_empty() {
            let mut all = runs.values();
            return match (all.next(), all.next()) {
                (Some(only), None) => Ok(only.clone()),
                _ => Err(missing(format!("this worker judges for {} runs; name one in options.run_id", runs.len()))),
            };
        }
        let id = run_id("options.run_id", run)?;
        runs.get(&id)
            .cloned()
            .ok_or_else(|| missing(format!("this worker does not judge for run {id}; ask the coordinator who does")))
    }

    /// Finds who is asked, and under which conditions.
    fn asked(&self, options: Option<wire::JudgeOptions>) -> Result<(Arc<dyn Judge>, CallContext), Status> {
        let options = options.unwrap_or_default();
        let serving = self.serving(&options.run_id)?;
        let name = if options.judge.is_empty() { &serving.main } else { &options.judge };
        let Some(judge) = serving.judges.get(name) else {
            let known: Vec<&str> = serving.judges.keys().map(String::as_str).collect();
            let text = format!("there is no judge {name:?}; known are {}", known.join(", "));
            return Err(Failure::new(Reason::UnknownName, text).into());
        };
        let call = CallContext::new(options.seed, Instant::now() + TIMEOUT);
        Ok((judge.clone(), CallContext { notes: options.notes, ..call }))
    }

    /// Asks one question.
    async fn one(
        &self,
        (ask, most): (Ask, std::ops::RangeInclusive<usize>),
        (prompt, candidates): (Option<common::Prompt>, Vec<wire::Candidate>),
        options: Option<wire::JudgeOptions>,
    ) -> Result<Judgement, Status> {
        let item = item((None, ask), prompt, ("candidates", candidates, most))?;
        let (judge, call) = self.asked(options)?;
        let judged = judge.judge(&[item], &call).await;
        Ok(judged.into_iter().next().ok_or_else(|| Failure::new(Reason::Internal, "the judge said nothing"))?)
    }
}

fn item(
    (id, ask): (Option<RecordId>, Ask),
    prompt: Option<common::Prompt>,
    (field, candidates, count): (&str, Vec<wire::Candidate>, std::ops::RangeInclusive<usize>),
) -> Result<JudgeItem, Error> {
    counted(field, candidates.len(), count)?;
    let prompt: joust_core::Prompt = required("prompt", prompt)?;
    let one = |(i, found): (usize, wire::Candidate)| {
        let player = match found.player {
            0 => Player::Policy,
            number => choice::<common::Player, _>(&format!("{field}[{i}].player"), number)?,
        };
        Ok(Candidate {
            player,
            text: text(&format!("{field}[{i}].text"), found.text)?,
            token_count: found.token_count as usize,
            truncated: found.truncated,
        })
    };
    let candidates: Vec<Candidate> = candidates.into_iter().enumerate().map(one).collect::<Result<_, Error>>()?;
    let id = id.unwrap_or_else(|| {
        let shown = prompt.display();
        let mut parts: Vec<&[u8]> = vec![b"asked", shown.as_bytes()];
        parts.extend(candidates.iter().map(|candidate| candidate.text.as_bytes()));
        RecordId::derive(&parts)
    });
    Ok(JudgeItem { id, ask, prompt, candidates })
}

fn asked(number: i32) -> Result<(Ask, std::ops::RangeInclusive<usize>), Error> {
    match wire::Ask::try_from(number) {
        Ok(wire::Ask::Score) => Ok((Ask::Score, 1..=MAX_ANSWERS)),
        Ok(wire::Ask::Compare) => Ok((Ask::Compare, 2..=2)),
        Ok(wire::Ask::Rank) => Ok((Ask::Rank, 2..=MAX_RANKED)),
        _ => Err(Error::value("ask", number, "score, compare or rank")),
    }
}

fn said(ask: Ask) -> wire::Ask {
    match ask {
        Ask::Score => wire::Ask::Score,
        Ask::Compare => wire::Ask::Compare,
        Ask::Rank => wire::Ask::Rank,
    }
}

/// Returns each candidate's mean probability to beat all, itself counted as one half.
fn win_rates(judgement: &Judgement) -> Vec<f64> {
    let Some(JudgementValue::Matrix(matrix)) = &judgement.value else { return Vec::new() };
    let size = (matrix.len() as f64).sqrt() as usize;
    matrix.chunks(size.max(1)).map(|row| row.iter().sum::<f64>() / size as f64).collect()
}

#[tonic::async_trait]
impl JudgeService for Server {
    type JudgeBatchStream = Pin<Box<dyn Stream<Item = Result<wire::JudgeBatchResponse, Status>> + Send>>;

    async fn score(&self, request: Request<wire::ScoreRequest>) -> Answer<wire::ScoreResponse> {
        let wire::ScoreRequest { prompt, candidates, options } = request.into_inner();
        let judged = self.one((Ask::Score, 1..=MAX_ANSWERS), (prompt, candidates), options).await?;
        Ok(Response::new(wire::ScoreResponse { judgement: Some(judged.into()) }))
    }

    async fn compare(&self, request: Request<wire::CompareRequest>) -> Answer<wire::CompareResponse> {
        let wire::CompareRequest { prompt, first, second, options } = request.into_inner();
        let candidates = first.into_iter().chain(second).collect();
        let judged = self.one((Ask::Compare, 2..=2), (prompt, candidates), options).await?;
        Ok(Response::new(wire::CompareResponse { judgement: Some(judged.into()) }))
    }

    async fn rank(&self, request: Request<wire::RankRequest>) -> Answer<wire::RankResponse> {
        let wire::RankRequest { prompt, candidates, options } = request.into_inner();
        let judged = self.one((Ask::Rank, 2..=MAX_RANKED), (prompt, candidates), options).await?;
        let win_rates = win_rates(&judged);
        Ok(Response::new(wire::RankResponse { judgement: Some(judged.into()), win_rates }))
    }

    async fn critique(&self, request: Request<wire::CritiqueRequest>) -> Answer<wire::CritiqueResponse> {
        let wire::CritiqueRequest { prompt, candidates, options } = request.into_inner();
        let options = wire::JudgeOptions { notes: true, ..options.unwrap_or_default() };
        let judged = self.one((Ask::Score, 1..=MAX_ANSWERS), (prompt, candidates), Some(options)).await?;
        Ok(Response::new(wire::CritiqueResponse { judgement: Some(judged.into()) }))
    }

    async fn judge_batch(&self, request: Request<wire::JudgeBatchRequest>) -> Answer<Self::JudgeBatchStream> {
        let wire::JudgeBatchRequest { items, options } = request.into_inner();
        counted("items", items.len(), 1..=MAX_ITEMS)?;
        let one = |(i, found): (usize, wire::JudgeItem)| {
            let parse = || {
                let id = if found.id.is_empty() { None } else { Some(record_id("id", &found.id)?) };
                let (ask, count) = asked(found.ask)?;
                item((id, ask), found.prompt, ("candidates", found.candidates, count))
            };
            parse().map_err(|error: Error| error.at(format!("items[{i}]")))
        };
        let items: Vec<JudgeItem> = items.into_iter().enumerate().map(one).collect::<Result<_, _>>()?;
        let (judge, call) = self.asked(options)?;
        let (sender, receiver) = mpsc::channel(TOGETHER);
        tokio::spawn(async move {
            let mut index = 0;
            for part in items.chunks(TOGETHER) {
                let judged = tokio::select! {
                    judged = judge.judge(part, &call) => judged,
                    // Who hung up wants no more.
                    () = sender.closed() => return,
                };
                for judgement in judged {
                    let said = wire::JudgeBatchResponse { index, judgement: Some(judgement.into()) };
                    if sender.send(Ok(said)).await.is_err() {
                        return;
                    }
                    index += 1;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn list_judges(&self, request: Request<wire::ListJudgesRequest>) -> Answer<wire::ListJudgesResponse> {
        let request = request.into_inner();
        page_size("page_size", request.page_size)?;
        let serving = self.serving(&request.run_id)?;
        let info = |(name, judge): (&String, &Arc<dyn Judge>)| wire::JudgeInfo {
            name: name.clone(),
            config_hash: judge.config_hash().into(),
            kind: serving.kinds.get(name).cloned().unwrap_or_default(),
            asks: judge.asks().iter().map(|ask| said(*ask).into()).collect(),
            notes: judge.writes_notes(),
        };
        let judges = serving.judges.iter().map(info).collect();
        Ok(Response::new(wire::ListJudgesResponse { judges, next_page_token: String::new() }))
    }
}
