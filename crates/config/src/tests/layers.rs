//! Which layer wins, and what follows from what.

use std::path::Path;

use joust_core::Player;

use super::{LEAST, WHOLE, run};
use crate::{Origin, Resolved, RunFile, explain, judge::JudgeConfig, load, resolve, run::*};

fn origin(resolved: &Resolved, key: &str) -> String {
    resolved.origins.get(key).unwrap_or(&Origin::Default).to_string()
}

fn loss(name: LossName, params: &[(&str, f64)]) -> Loss {
    Loss { name, params: params.iter().map(|(key, value)| ((*key).to_owned(), *value)).collect() }
}

#[test]
fn the_design_s_run_file_resolves() {
    let run = run(WHOLE, &[]).expect("valid").run;
    assert_eq!(run.learner.optim.steps, Some(120));
    assert_eq!(run.loss, loss(LossName::Dpo, &[("beta", 0.1), ("label_smoothing", 0.0)]));
    assert_eq!(run.sampling.players, [Player::Policy; 2]);
    assert!(matches!(run.training_judge(), Some(JudgeConfig::Rule(judge)) if judge.rules.len() == 5));
}

#[test]
fn little_is_needed() {
    let resolved = run(LEAST, &[]).expect("valid");
    assert_eq!(resolved.run.feedback.judge, "main");
    assert_eq!(resolved.run.eval.judge, "main");
    assert_eq!(resolved.run.output.dir, Path::new("runs/least"));
    assert_eq!(origin(&resolved, "eval.judge"), "from feedback.judge");
    assert_eq!(origin(&resolved, "loss.beta"), "default");
    assert_eq!(resolved.run.loss.params["beta"], 0.1);
}

#[test]
fn a_section_that_is_begun_keeps_the_other_defaults() {
    let run = run(LEAST, &["learner.threads=3", "eval.every=7", "sampling.top_k=5", "pipeline={}"]).expect("valid").run;
    let optim = Optimization { threads: 3, ..Optimization::default() };
    assert_eq!(run.learner, Learner { optim, ..Learner::default() });
    assert_eq!(run.eval, Eval { every: 7, judge: "main".into(), ..Eval::default() });
    assert_eq!(run.sampling, Sampling { top_k: 5, ..Sampling::default() });
    assert_eq!(run.pipeline, Pipeline::default());
}

#[test]
fn presets_bring_the_paper_s_losses() {
    for (preset, params) in [
        ("oaif-dpo", loss(LossName::Dpo, &[("beta", 0.1), ("label_smoothing", 0.0)])),
        ("oaif-ipo", loss(LossName::Ipo, &[("beta", 1.0)])),
        ("oaif-slic", loss(LossName::Hinge, &[("beta", 0.002)])),
    ] {
        let resolved = run(LEAST, &[&format!("preset={preset}")]).expect("valid");
        assert_eq!(resolved.run.loss, params);
        assert_eq!(origin(&resolved, "loss.beta"), format!("preset {preset}"));
        assert_eq!(resolved.run.feedback.ask, Ask::Compare);
        assert_eq!(resolved.run.sampling.num_generations, 2);
    }
}

#[test]
fn iterated_presets_hold_to_the_previous_policy() {
    for (preset, answers, ask, select, name) in [
        ("sppo", 5, Ask::Rank, Select::WinRate, LossName::Sppo),
        ("iterative-dpo", 8, Ask::Score, Select::BestWorst, LossName::Dpo),
    ] {
        let run = run(LEAST, &[&format!("preset={preset}")]).expect("valid").run;
        assert_eq!((run.sampling.num_generations, run.feedback.ask, run.pairing.select), (answers, ask, select));
        assert_eq!((run.loss.name, run.reference.kind), (name, ReferenceKind::Previous));
        assert_eq!((run.learner.iteration_steps, run.pipeline.max_staleness), (8, 0));
    }
}

#[test]
fn a_preset_s_beta_belongs_to_its_loss() {
    let with = |sets: &[&str]| run(LEAST, sets).expect("valid").run.loss.params.get("beta").copied();
    assert_eq!(with(&["preset=oaif-slic", "loss.name=hinge"]), Some(0.002));
    assert_eq!(with(&["preset=oaif-slic", "loss.name=ipo"]), Some(1.0));
    assert_eq!(with(&["preset=oaif-slic", "loss.name=dpo"]), Some(0.1));
    assert_eq!(with(&["loss.name=slic_hf", "preset=oaif-dpo"]), None);
}

#[test]
fn each_layer_wins_over_the_one_below() {
    let env = |value: &str| vec![("JOUST__LOSS__BETA".to_owned(), value.to_owned())];
    let with = |text: &str, sets: &[String], env: &[(String, String)]| -> (Option<f64>, String) {
        let resolved: Resolved = resolve(text, Path::new("run.toml"), sets, env).expect("valid");
        (resolved.run.loss.params.get("beta").copied(), origin(&resolved, "loss.beta"))
    };
    let preset = format!("preset = \"oaif-ipo\"{LEAST}");
    let file = format!("{preset}[loss]\nbeta = 0.3\n");
    assert_eq!(with(LEAST, &[], &[]), (Some(0.1), "default".into()));
    assert_eq!(with(&preset, &[], &[]), (Some(1.0), "preset oaif-ipo".into()));
    assert_eq!(with(&file, &[], &[]), (Some(0.3), "run.toml:13".into()));
    assert_eq!(with(&file, &[], &env("0.4")), (Some(0.4), "environment variable JOUST__LOSS__BETA".into()));
    let set = ["loss.beta = 0.5".to_owned()];
    assert_eq!(with(&file, &set, &env("0.4")), (Some(0.5), "--set loss.beta = 0.5".into()));
}

#[test]
fn a_wrong_variable_is_named() {
    let env = [("JOUST__LERNER__BETA".to_owned(), "1".to_owned()), ("JOUST_LOG".to_owned(), "x".to_owned())];
    let error = resolve::<RunFile>(LEAST, Path::new("run.toml"), &[], &env).expect_err("refused");
    assert_eq!(
        error.to_string(),
        "unknown key lerner in environment variable JOUST__LERNER__BETA; did you mean learner?"
    );
}

#[test]
fn overrides_take_toml_values_and_bare_words() {
    let sets = [
        "policy.dtype=float32",
        "pairing.filters=[\"truncated\"]",
        "eval.stop={ patience = 3 }",
        "judge.main.scale=2",
        "judge.0.rules.0.max_count=7",
        "learner.learning_rate=1e-4",
        "data.prompts=other file.jsonl",
    ];
    let run = run(LEAST, &sets).expect("valid").run;
    assert_eq!(run.policy.dtype, Dtype::Float32);
    assert_eq!(run.pairing.filters, [Filter::Truncated]);
    assert_eq!(run.eval.stop.patience, 3);
    assert_eq!(run.judge[0].scale(), 2.0);
    assert!(matches!(&run.judge[0], JudgeConfig::Rule(judge)
        if matches!(&judge.rules[0], crate::judge::Rule::Words(rule) if rule.max_count == 7)));
    assert_eq!(run.learner.learning_rate, 1e-4);
    assert!(run.data.prompts.expect("prompts").ends_with("other file.jsonl"));
}

#[test]
fn players_and_num_generations_follow_each_other() {
    let players = |sets: &[&str]| run(LEAST, sets).expect("valid").run.sampling.players.len();
    assert_eq!(players(&["sampling.num_generations=5"]), 5);
    assert_eq!(players(&["sampling.num_generations=5", "preset=oaif-dpo"]), 5);
    assert_eq!(players(&["sampling.num_generations=5", "sampling.players=[\"policy\"]"]), 5);
    let three = run(LEAST, &["sampling.players=[\"policy\", \"policy\", \"policy\"]"]).expect("valid").run;
    assert_eq!(three.sampling.num_generations, 3);
}

#[test]
fn deterministic_runs_alternate_and_fix_their_threads() {
    let resolved = run(LEAST, &["deterministic=true"]).expect("valid");
    assert_eq!(resolved.run.pipeline.max_staleness, 0);
    assert_eq!(resolved.run.learner.optim.threads, 1);
    assert_eq!(origin(&resolved, "pipeline.max_staleness"), "from deterministic");
    assert_eq!(run(LEAST, &["deterministic=true", "learner.threads=2"]).expect("valid").run.learner.optim.threads, 2);
}

#[test]
fn held_out_files_replace_the_share() {
    let resolved = run(LEAST, &["data.eval_prompts=held.jsonl"]).expect("valid");
    assert_eq!(resolved.run.data.eval_fraction, 0.0);
    assert_eq!(origin(&resolved, "data.eval_fraction"), "from data.eval_prompts");
}

#[test]
fn inputs_start_from_the_file_s_folder_and_output_from_here() {
    let run = run(WHOLE, &[]).expect("valid").run;
    let here = std::env::current_dir().expect("there");
    assert_eq!(run.policy.model, here.join("conf/examples/stories/base"));
    assert_eq!(run.data.prompts, Some(here.join("conf/prompts.jsonl")));
    assert_eq!(run.output.dir, Path::new("runs/stories"));
}

#[test]
fn explain_names_every_origin() {
    let text = explain(&run(LEAST, &["loss.beta=0.2"]).expect("valid"));
    let line = |key: &str| {
        let found = text.lines().find(|line| line.starts_with(&format!("{key} = "))).expect("listed");
        found.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line("loss.beta"), "loss.beta = 0.2 # --set loss.beta=0.2");
    assert_eq!(line("judge.0.rules.0.words.happy"), "judge.0.rules.0.words.happy = 1.0 # conf/run.toml:11");
    assert_eq!(line("learner.adam_beta2"), "learner.adam_beta2 = 0.999 # default");
    assert_eq!(line("output.dir"), "output.dir = \"runs/least\" # from name");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = load::<RunFile>(Path::new("/nowhere/run.toml"), &[]).expect_err("refused");
    assert!(error.to_string().starts_with("cannot read /nowhere/run.toml: "), "{error}");
}

#[test]
fn warm_up_shares_are_rounded_up() {
    let optim = Optimization { warmup_ratio: 0.1, ..Optimization::default() };
    assert_eq!(optim.warmup(101), 11);
    assert_eq!(Optimization { warmup_steps: 3, ..Optimization::default() }.warmup(101), 3);
}
