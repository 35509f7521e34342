//! `joust queue stats | dead | requeue` and `joust pairs ls | show | export | add`.

use std::{io::Write, path::Path, process::ExitCode};

use anyhow::{Context, ensure};
use joust_core::{Example, RecordId};
use joust_proto::coordinator::v1 as wire;
use serde_json::json;

use super::{connect, give, key, said};
use crate::args::{PairsCommand, QueueCommand};

/// Runs `joust queue`.
///
/// # Errors
/// No cluster, or what it refuses.
pub async fn queue(command: QueueCommand) -> anyhow::Result<ExitCode> {
    match command {
        QueueCommand::Stats(args) => {
            let request = wire::GetQueueStatsRequest { run_id: args.run };
            let answer = connect(args.at.cluster.folder())?.get_queue_stats(request).await.map_err(said)?;
            let topics = answer.into_inner().topics;
            if !args.at.json {
                println!(
                    "{:<10} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>6}",
                    "topic", "put", "waiting", "leased", "assigned", "finished", "dropped", "dead"
                );
            }
            for topic in topics {
                let (dropped, dead): (u64, u64) = (topic.dropped.values().sum(), topic.dead.values().sum());
                match args.at.json {
                    true => println!(
                        "{}",
                        json!({ "topic": topic.topic, "put": topic.put, "waiting": topic.waiting, "leased": topic.leased,
                            "assigned": topic.assigned, "finished": topic.finished, "dropped": topic.dropped, "dead": topic.dead,
                            "expired": topic.expired, "retried": topic.retried, "capacity": topic.capacity })
                    ),
                    false => println!(
                        "{:<10} {:>8} {:>8} {:>8} {:>8} {:>8} {dropped:>8} {dead:>6}",
                        topic.topic, topic.put, topic.waiting, topic.leased, topic.assigned, topic.finished
                    ),
                }
            }
        }
        QueueCommand::Dead(args) => {
            let mut client = connect(args.at.cluster.folder())?;
            let mut page_token = String::new();
            loop {
                let (run_id, topic) = (args.run.clone(), String::new());
                let request = wire::ListDeadLettersRequest { run_id, topic, page_size: 1000, page_token };
                let answer = client.list_dead_letters(request).await.map_err(said)?.into_inner();
                for letter in answer.dead_letters {
                    let id: String = letter.id.iter().map(|byte| format!("{byte:02x}")).collect();
                    match args.at.json {
                        true => println!(
                            "{}",
                            json!({ "id": id, "topic": letter.topic, "reason": letter.reason, "deliveries": letter.deliveries })
                        ),
                        false => {
                            println!("{id} {} after {} deliveries: {}", letter.topic, letter.deliveries, letter.reason)
                        }
                    }
                }
                page_token = answer.next_page_token;
                if page_token.is_empty() {
                    break;
                }
            }
        }
        QueueCommand::Requeue(args) => {
            let ids = args
                .ids
                .iter()
                .map(|id| Ok(id.parse::<RecordId>()?.as_bytes().to_vec()))
                .collect::<anyhow::Result<_>>()?;
            let (run_id, topic, idempotency_key) = (args.run, args.topic, key());
            let request = wire::RequeueDeadLettersRequest { run_id, topic, ids, idempotency_key };
            let answer = connect(args.at.cluster.folder())?.requeue_dead_letters(request).await.map_err(said)?;
            println!("requeued {}", answer.into_inner().requeued);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs `joust pairs`.
///
/// # Errors
/// No cluster, or what it refuses.
pub async fn pairs(command: PairsCommand) -> anyhow::Result<ExitCode> {
    match command {
        PairsCommand::Ls(args) => {
            for (step, example) in examples(args.at.cluster.folder(), &args.run).await? {
                match args.at.json {
                    true => println!("{}", json!({ "step": step, "example": example })),
                    false => println!(
                        "{} step {step} policy version {} answers {}",
                        example.id,
                        example.policy_version,
                        example.answers.len()
                    ),
                }
            }
        }
        PairsCommand::Show(args) => {
            let found = examples(args.at.cluster.folder(), &args.run).await?;
            let wanted: RecordId = args.id.parse()?;
            let (step, example) = found.into_iter().find(|(_, example)| example.id == wanted).with_context(|| {
                format!("run {} holds no example {}; `joust pairs ls {}` lists them", args.run, args.id, args.run)
            })?;
            println!("{}", serde_json::to_string_pretty(&json!({ "step": step, "example": example }))?);
        }
        PairsCommand::Add(args) => return give::preferences(args).await,
        PairsCommand::Export(args) => {
            let found = examples(args.at.cluster.folder(), &args.run).await?;
            ensure!(
                !found.is_empty(),
                "run {} holds no examples: its queue keeps those of steps since the last checkpoint",
                args.run
            );
            let mut text = Vec::new();
            for (step, example) in &found {
                writeln!(text, "{}", json!({ "step": step, "example": example }))?;
            }
            crate::run::folder::write_atomically(&args.out, &String::from_utf8(text)?)?;
            println!("exported {} examples to {}", found.len(), args.out.display());
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn examples(cluster: Option<&Path>, run: &str) -> anyhow::Result<Vec<(u64, Example)>> {
    let (run_id, filter) = (run.to_owned(), None);
    let request = wire::ExportExamplesRequest { run_id, filter, after_position: 0 };
    let mut stream = connect(cluster)?.export_examples(request).await.map_err(said)?.into_inner();
    let mut found = Vec::new();
    while let Some(message) = stream.message().await.map_err(said)? {
        let applied = message.example.context("the coordinator sent no example")?;
        let example = applied.example.context("the coordinator sent no example")?;
        found.push((applied.step.unwrap_or_default(), Example::try_from(example)?));
    }
    Ok(found)
}
