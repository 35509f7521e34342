//! `joust games`: the losses on games whose equilibria are known.

use std::process::ExitCode;

use joust_games::{Row, draw, show};

use crate::{args::GamesArgs, optim};

/// Runs the verb.
///
/// # Errors
/// A plot that cannot be written.
pub fn run(args: &GamesArgs) -> anyhow::Result<ExitCode> {
    optim::set_threads(1);
    let show = show()?;
    let header = ["game", "method", "labels", "steps", "reached", "expected", "distance", "gap"].map(str::to_owned);
    let rows: Vec<[String; 8]> = std::iter::once(header).chain(show.rows.iter().map(cells)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..8).map(width).collect();
    for row in &rows {
        let line: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        println!("{}", line.join("  ").trim_end());
    }
    if let Some(file) = &args.svg {
        draw(&show, file)?;
        println!("plot written to {}", file.display());
    }
    Ok(ExitCode::SUCCESS)
}

fn cells(row: &Row) -> [String; 8] {
    let shares = |policy: &[f64]| policy.iter().map(|p| format!("{p:.4}")).collect::<Vec<_>>().join(" ");
    [
        row.game.to_owned(),
        row.method.clone(),
        row.labels.to_owned(),
        row.steps.to_string(),
        shares(&row.reached),
        shares(&row.expected),
        format!("{:.1e}", row.distance()),
        format!("{:.1e}", row.gap.max(0.0)),
    ]
}
