//! What each preset does in its first steps as it is shipped, on the stories model: nothing that must move stands still.
//!
//! `make presets` writes the table into docs/algorithms.md.

use std::{fs, path::Path, process::Command};

use joust_config::{
    run::{Point, Preset, ReferenceKind},
    works::name_of,
};
use serde_json::Value;

/// Steps of a run: an iteration of the presets that have such, and the first step of the next.
const STEPS: usize = 9;
/// Where the table stands in docs/algorithms.md.
const MARKS: [&str; 2] = ["<!-- presets as shipped -->\n", "<!-- end of presets as shipped -->"];

/// Runs a preset with nothing but the sizes of the run beside it, and returns its steps.
fn run(preset: &str, folder: &Path) -> Vec<Value> {
    let stories = Path::new("../../examples/stories").canonicalize().expect("the folder");
    let example = fs::read_to_string(stories.join("run.toml")).expect("the example");
    let judge = &example[example.find("[[judge]]").expect("a judge")..example.find("[loss]").expect("a loss")];
    let out = folder.join(preset);
    let text = format!(
        "schema = 1\nname = \"shipped\"\npreset = \"{preset}\"\n\
         policy = {{ model = {base:?}, dtype = \"float32\" }}\n\
         data = {{ prompts = {prompts:?}, eval_fraction = 0.0 }}\n\
         sampling = {{ max_new_tokens = 32 }}\n\
         learner = {{ prompts_per_step = 8, micro_batch = 8, learning_rate = 1e-4, lr_scheduler_type = \"constant\", steps = {STEPS} }}\n\
         eval = {{ every = 0 }}\noutput = {{ dir = {out:?}, archive = false }}\n\n{judge}",
        base = stories.join("base"),
        prompts = stories.join("prompts.jsonl"),
    );
    let file = folder.join(format!("{preset}.toml"));
    fs::write(&file, text).expect("written");
    let done = Command::new(env!("CARGO_BIN_EXE_joust")).arg("run").arg(&file).output().expect("joust starts");
    assert!(done.status.success(), "{preset}: {}", String::from_utf8_lossy(&done.stderr));
    let metrics = fs::read_to_string(out.join("metrics.jsonl")).expect("metrics");
    let lines = metrics.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let steps: Vec<Value> = lines.filter(|line| line["kind"] == "step").collect();
    assert_eq!(steps.len(), STEPS, "{preset}");
    steps
}

fn number(step: &Value, name: &str) -> Option<f64> {
    step[name].as_f64()
}

/// Checks the steps of one preset.
fn check(name: &str, point: &Point, steps: &[Value]) {
    let kl = |at: usize| number(&steps[at], "objective/kl");
    let moved = |at: usize| number(&steps[at], "logps/ref_chosen").is_none_or(|_| kl(at).is_none_or(|kl| kl != 0.0));
    assert!(steps.iter().all(|step| number(step, "grad_norm").is_some_and(|norm| norm > 0.0)), "{name}");
    assert!((1..STEPS - 1).all(moved), "{name}: the policy stands on its reference: {:?}", kl(1));
    if point.reference != ReferenceKind::Previous {
        return;
    }
    // The whole iteration is answered by its reference, which the policy leaves, and which follows at the iteration's end.
    assert!(steps.iter().take(STEPS - 1).all(|step| number(step, "staleness/max") == Some(0.0)), "{name}");
    let distance = |at: usize| kl(at).expect("a reference").abs();
    assert!(distance(0) < 1e-3 && distance(STEPS - 1) < 1e-3, "{name}: {} {}", distance(0), distance(STEPS - 1));
    assert!(
        (1..STEPS - 1).all(|at| distance(at) > 1e-3),
        "{name}: {:?}",
        (1..STEPS - 1).map(distance).collect::<Vec<_>>()
    );
    // What holds the policy is part of the loss: DPO's is ln 2 at the reference and nowhere else.
    if name == "iterative-dpo" {
        let off = |at: usize| (number(&steps[at], "loss").expect("a loss") - 2f64.ln()).abs();
        assert!(off(0) < 1e-5 && (1..STEPS - 1).all(|at| off(at) > 1e-4), "{name}: {} {}", off(0), off(1));
    }
}

/// Writes one line of the table: the first two steps and the last.
fn line(name: &str, point: &Point, steps: &[Value]) -> String {
    let cell = |key: &str| -> String {
        let show = |at: usize| number(&steps[at], key).map_or("–".to_owned(), |value| format!("{value:.3}"));
        [0, 1, STEPS - 1].map(show).join(", ")
    };
    let examples = steps[0]["pairs"].as_f64().map_or("answers", |_| "pairs");
    let count = number(&steps[0], examples).unwrap_or_default();
    let paper = paper(name);
    format!(
        "| `{name}` | {} | {} | {} | {} | {count} {examples} | {} | {paper} |\n",
        cell("staleness/max").replace(".000", ""),
        name_of(&point.reference),
        cell("objective/kl"),
        cell("val/ratio"),
        cell("grad_norm"),
    )
}

/// Returns what the paper of a preset says of who samples and what is held to.
fn paper(name: &str) -> &'static str {
    match name {
        "oaif-dpo" | "oaif-ipo" | "oaif-slic" => "on-policy pairs, reference: the SFT model",
        "sppo" => "reference and sampler: the policy at the iteration's start",
        "nash-md" => "policy against its mixture with the SFT model, held to the SFT model",
        "nash-ema" => "policy against its average, held to the SFT model",
        "ipo-md" => "both answers of the mixture, reference: the SFT model",
        "xpo" => "one answer of the policy, one of the reference, the SFT model",
        "iterative-dpo" => "reference and sampler: the policy at the iteration's start",
        "ppo" => "4 passes with clipped ratios, penalty against the SFT model",
        "grpo" => "ratio to the sampler, KL term against the SFT model",
        _ => "on-policy, penalty against the SFT model",
    }
}

#[test]
fn every_preset_moves_as_its_paper_says() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut table = String::from(
        "| preset | staleness | reference | KL to it, nats | ratio | examples | gradient norm | paper |\n|---|---|---|---|---|---|---|---|\n",
    );
    for (preset, point) in Preset::ALL.map(|preset| (preset, Point::of(preset))) {
        let name = name_of(&preset);
        let steps = run(&name, folder.path());
        table += &line(&name, &point, &steps);
        check(&name, &point, &steps);
    }
    println!("{table}");
    if std::env::var_os("JOUST_PRESETS").is_some() {
        let path = "../../docs/algorithms.md";
        let text = fs::read_to_string(path).expect("the page");
        let (before, rest) = text.split_once(MARKS[0]).expect("the first mark");
        let (_, after) = rest.split_once(MARKS[1]).expect("the last mark");
        fs::write(path, format!("{before}{}{table}{}{after}", MARKS[0], MARKS[1])).expect("written");
    }
}
