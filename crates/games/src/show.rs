//! The games that are shown: each method with the point where theory puts it.

use joust_core::Player;
use joust_losses::{GradientLoss, PairLoss};
use joust_pairs::Select;
use joust_train::Objective;

use crate::{
    Game, Method, Path, Result, Settings, dpo_point, game::total_variation, nash, nash_md_point, play, self_play,
};

/// Temperature of the regularised games.
pub const TAU: f64 = 0.2;
/// Step size of SPPO.
pub const ETA: f64 = 0.05;
/// Iterations of SPPO.
pub const ITERATIONS: u64 = 6000;

/// One method on one game.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Name of the game.
    pub game: &'static str,
    /// Name of the method.
    pub method: String,
    /// How the pairs and labels came about: `exact`, or `drawn`.
    pub labels: &'static str,
    /// Steps, or iterations.
    pub steps: u64,
    /// Where it came to; of SPPO the average.
    pub reached: Vec<f64>,
    /// Where theory puts it.
    pub expected: Vec<f64>,
    /// Gain of the best response: of the game at `tau`, of SPPO the duality gap without a regulariser.
    pub gap: f64,
}

impl Row {
    /// Returns the total variation between what was reached and what was expected.
    pub fn distance(&self) -> f64 {
        total_variation(&self.reached, &self.expected)
    }
}

/// All rows, and the paths of the three-answer games by method.
#[derive(Debug, Clone, PartialEq)]
pub struct Show {
    /// One row a method and game.
    pub rows: Vec<Row>,
    /// Paths to draw: name, path and the expected point.
    pub paths: Vec<(String, Path, Vec<f64>)>,
}

/// A method with where it should end.
struct Expected {
    method: Method,
    point: Vec<f64>,
}

fn methods(game: &Game) -> Vec<Expected> {
    let pair = |name: &str, loss, point| Expected {
        method: Method {
            name: name.to_owned(),
            objective: Objective::Pair(loss),
            players: [Player::Policy; 2],
            mixture_coef: 0.0,
            select: Select::BestWorst,
        },
        point,
    };
    let nash_md = |coef: f64| Expected {
        method: Method {
            name: format!("nash_md ({coef})"),
            objective: Objective::Gradient(GradientLoss::NashMd { beta: TAU }),
            players: [Player::Policy, Player::Mixture],
            mixture_coef: coef,
            select: Select::Opponent,
        },
        point: nash_md_point(game, TAU, coef),
    };
    let mut ipo_md = pair("ipo_md (0.25)", PairLoss::Ipo { beta: TAU }, nash_md_point(game, TAU, 0.25));
    ipo_md.method.players = [Player::Mixture; 2];
    ipo_md.method.mixture_coef = 0.25;
    vec![
        pair("ipo", PairLoss::Ipo { beta: TAU }, nash(game, TAU)),
        nash_md(0.0),
        nash_md(0.125),
        nash_md(0.25),
        ipo_md,
        pair("dpo", PairLoss::Dpo { beta: TAU, label_smoothing: 0.0 }, dpo_point(game, TAU)),
    ]
}

/// Plays every method on every game.
///
/// # Errors
/// A loss that refuses what a game gives it.
pub fn show() -> Result<Show> {
    let mut show = Show { rows: Vec::new(), paths: Vec::new() };
    let exact = Settings { steps: 4000, learning_rate: 0.05, samples: None, seed: 0 };
    let drawn = Settings { steps: 6000, learning_rate: 0.02, samples: Some(32), seed: 0 };
    for (game, labels, settings) in
        [(Game::noisy_cycle(), "exact", exact), (Game::four(), "exact", exact), (Game::noisy_cycle(), "drawn", drawn)]
    {
        for Expected { method, point } in methods(&game) {
            // Around DPO's point the field turns far more than it pulls inwards: smaller steps, and more of them.
            let slow = Settings { steps: 4 * settings.steps, learning_rate: 0.4 * settings.learning_rate, ..settings };
            let settings = if method.name == "dpo" { slow } else { settings };
            let path = play(&game, &method, &settings)?;
            show.rows.push(Row {
                game: game.name,
                method: method.name.clone(),
                labels,
                steps: settings.steps,
                gap: game.exploitability(&path.last, TAU),
                reached: path.last.clone(),
                expected: point.clone(),
            });
            if labels == "exact" && game.answers() == 3 {
                show.paths.push((method.name, path, point));
            }
        }
    }
    let game = Game::cycle();
    let path = self_play(&game, ETA, ITERATIONS)?;
    let uniform = vec![1.0 / 3.0; 3];
    show.rows.push(Row {
        game: game.name,
        method: format!("sppo_list (eta {ETA}), average"),
        labels: "drawn",
        steps: ITERATIONS,
        gap: game.duality_gap(&path.average),
        reached: path.average.clone(),
        expected: uniform.clone(),
    });
    show.paths.push(("sppo_list".into(), path, uniform));
    Ok(show)
}
