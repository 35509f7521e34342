//! `joust presets`: what each preset stands for.

use std::process::ExitCode;

use joust_config::{
    run::{Point, Preset},
    works::name_of,
};

use crate::args::PresetsArgs;

/// Runs the verb.
///
/// # Errors
/// A preset that does not exist.
pub fn run(args: &PresetsArgs) -> anyhow::Result<ExitCode> {
    match &args.name {
        None => print!("{}", table()),
        Some(name) => print!("{}", show(name)?),
    }
    Ok(ExitCode::SUCCESS)
}

/// Lists all presets with their five choices.
fn table() -> String {
    let mut rows = vec![["preset", "sampling", "feedback", "pairing", "loss", "reference"].map(str::to_owned)];
    for preset in Preset::ALL {
        let point = Point::of(preset);
        rows.push([
            name_of(&preset),
            match point.players {
                [one, rest @ ..] if rest.iter().all(|player| player == one) => {
                    format!("{} x {}", point.players.len(), name_of(one))
                }
                mixed => mixed.iter().map(name_of).collect::<Vec<_>>().join(" vs "),
            },
            format!("{}, {}", name_of(&point.ask), name_of(&point.label)),
            name_of(&point.select),
            format!("{} (beta {})", name_of(&point.loss), point.beta),
            name_of(&point.reference),
        ]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..6).map(width).collect();
    let line = |row: &[String; 6]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect::<Vec<_>>();
        format!("{}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

/// Writes one preset as the part of a run file that it stands for.
fn show(name: &str) -> anyhow::Result<String> {
    let Some(preset) = Preset::ALL.into_iter().find(|preset| name_of(preset) == name) else {
        let known: Vec<String> = Preset::ALL.iter().map(name_of).collect();
        anyhow::bail!("no preset is called {name:?}; known are {}", known.join(", "));
    };
    let point = Point::of(preset);
    Ok(format!(
        "[sampling]\nplayers = {}\n[feedback]\nask = \"{}\"\nlabel = \"{}\"\n[pairing]\nselect = \"{}\"\n\
         filters = [\"ties\", \"identical\"]\n[loss]\nname = \"{}\"\nbeta = {}\n[reference]\nkind = \"{}\"\n",
        serde_json::to_string(point.players)?,
        name_of(&point.ask),
        name_of(&point.label),
        name_of(&point.select),
        name_of(&point.loss),
        point.beta,
        name_of(&point.reference)
    ))
}
