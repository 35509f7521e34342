//! Each bad input and the message that it gets.

use super::{LEAST, WHOLE, run};

/// Resolves a changed run file and returns the message of the refusal.
pub(super) fn message(text: &str, overrides: &[&str]) -> String {
    run(text, overrides).expect_err("refused").to_string()
}

/// Replaces one line of the whole run file.
pub(super) fn changed(from: &str, to: &str) -> String {
    assert_eq!(WHOLE.matches(from).count(), 1, "{from}");
    WHOLE.replace(from, to)
}

#[test]
fn unknown_keys_get_the_nearest_key_of_any_section() {
    assert_eq!(
        message(&changed("epochs_per_iteration = 1", "beeta = 0.2"), &[]),
        "unknown key learner.beeta in conf/run.toml:60; did you mean loss.beta?"
    );
    assert_eq!(
        message(&changed("[pipeline]", "[pipelin]"), &[]),
        "unknown key pipelin in conf/run.toml:64; did you mean pipeline?"
    );
    assert_eq!(message(WHOLE, &["learner.zzz=1"]), "unknown key learner.zzz in --set learner.zzz=1");
}

#[test]
fn unknown_keys_inside_judges_and_rules_are_found() {
    assert_eq!(
        message(&changed("kind = \"rule\"", "kind = \"rule\"\nscael = 2.0"), &[]),
        "unknown key judge.0.scael in conf/run.toml:33; did you mean judge.scale?"
    );
    assert_eq!(
        message(&changed("max_count = 3", "max_cout = 3"), &[]),
        "unknown key judge.0.rules.0.max_cout in conf/run.toml:34; did you mean judge.rules.max_count?"
    );
    assert_eq!(
        message(&changed("{ pattern = \"the end\", score = 1 }", "{ score = 1 }"), &[]),
        "judge.0.rules.1 = {\"score\":1} in conf/run.toml:35 is not valid: expected a table with one of the keys pattern, \
         words, length, repetition, ends_with"
    );
}

#[test]
fn values_out_of_range_are_named_with_their_domain() {
    for (set, expected) in [
        (
            "sampling.temperature=0",
            "sampling.temperature = 0 in --set sampling.temperature=0 is not valid: expected a number above 0",
        ),
        (
            "sampling.temperature=-1.5",
            "sampling.temperature = -1.5 in --set sampling.temperature=-1.5 is not valid: expected a number above 0",
        ),
        (
            "sampling.top_p=1.5",
            "sampling.top_p = 1.5 in --set sampling.top_p=1.5 is not valid: expected a number above 0 and at most 1",
        ),
        (
            "loss.beta=0",
            "loss.beta = 0 in --set loss.beta=0 is not valid: expected a number above 0; the default of dpo is 0.1",
        ),
        (
            "loss.label_smoothing=0.5",
            "loss.label_smoothing = 0.5 in --set loss.label_smoothing=0.5 is not valid: expected a number of at least 0 and below 0.5; the default of dpo is 0",
        ),
        (
            "data.eval_fraction=1",
            "data.eval_fraction = 1 in --set data.eval_fraction=1 is not valid: expected a number of at least 0 and below 1",
        ),
        (
            "sampling.num_generations=1",
            "sampling.num_generations = 1 in --set sampling.num_generations=1 is not valid: expected an integer of at least 2 and at most 1024",
        ),
        (
            "learner.micro_batch=5000000000",
            "learner.micro_batch = 5000000000 in --set learner.micro_batch=5000000000 is not valid: expected an integer of at least 1",
        ),
        ("schema=2", "schema = 2 in --set schema=2 is not valid: expected an integer that is 1"),
        (
            "policy.model=\"\"",
            "policy.model = \"\" in --set policy.model=\"\" is not valid: expected text that is not empty",
        ),
        (
            "learner.learning_rate=nan",
            "learner.learning_rate = \"nan\" in --set learner.learning_rate=nan is not valid: expected a number above 0",
        ),
        (
            "judge.main.rules.0.words={}",
            "judge.0.rules.0.words = {} in --set judge.main.rules.0.words={} is not valid: expected a table with at least one key",
        ),
    ] {
        assert_eq!(message(WHOLE, &[set]), expected);
    }
}

#[test]
fn values_of_another_type_are_named_with_file_and_line() {
    assert_eq!(
        message(&changed("steps = 120", "steps = \"many\""), &[]),
        "learner.steps = \"many\" in conf/run.toml:59 is not valid: expected an integer of at least 1 and below 2^63"
    );
    assert_eq!(
        message(&changed("shuffle = true", "shuffle = 1"), &[]),
        "data.shuffle = 1 in conf/run.toml:13 is not valid: expected true or false"
    );
    assert_eq!(
        message(&changed("[loss]\nname = \"dpo\"\nbeta = 0.1", "[[loss]]"), &[]),
        "loss = [{}] in conf/run.toml:46 is not valid: expected a table"
    );
    assert_eq!(
        message(WHOLE, &["loss.beta.x=1"]),
        "loss.beta = {\"x\":1} in --set loss.beta.x=1 is not valid: expected a number of at least 0"
    );
    assert_eq!(
        message(WHOLE, &["pairing.filters=ties"]),
        "pairing.filters = \"ties\" in --set pairing.filters=ties is not valid: expected a list of ties, identical, truncated"
    );
}

#[test]
fn missing_keys_say_what_to_write() {
    let without = |line: &str| {
        assert_eq!(LEAST.matches(line).count(), 1, "{line}");
        message(&LEAST.replace(line, ""), &[])
    };
    assert_eq!(
        without("prompts = \"prompts.jsonl\""),
        "missing key data.prompts in conf/run.toml:6: write a file of prompts, or data.pairs with given preferences"
    );
    assert!(without("schema = 1").starts_with("missing key schema in conf/run.toml: write an integer"));
    assert_eq!(
        without("kind = \"rule\""),
        "missing key judge.0.kind in conf/run.toml: one of rule, reward_model, oracle, matrix, learned, players"
    );
    let judge = LEAST.find("[[judge]]").expect("there");
    assert!(
        message(&LEAST[..judge], &[]).starts_with("missing key judge in conf/run.toml: write a list with at least one")
    );
}

#[test]
fn unknown_names_get_the_nearest_and_all() {
    assert_eq!(
        message(WHOLE, &["learner.lr_scheduler_type=cosin"]),
        "learner.lr_scheduler_type = \"cosin\" in --set learner.lr_scheduler_type=cosin is not known; did you mean cosine?; \
         known are constant, linear, cosine"
    );
    let text = message(WHOLE, &["preset=oaif_dpo"]);
    assert!(
        text.starts_with("preset = \"oaif_dpo\" in --set preset=oaif_dpo is not known; did you mean oaif-dpo?"),
        "{text}"
    );
    assert_eq!(
        message(WHOLE, &["judge.main.kind=rul"]),
        "judge.0.kind = \"rul\" in --set judge.main.kind=rul is not known; did you mean rule?; known are rule, reward_model, \
         oracle, matrix, learned, players"
    );
    let text = message(&changed("[\"policy\", \"policy\"]", "[\"policy\", \"polcy\"]"), &[]);
    assert!(
        text.starts_with("sampling.players.1 = \"polcy\" in conf/run.toml:19 is not known; did you mean policy?"),
        "{text}"
    );
}

#[test]
fn a_folder_has_no_revision() {
    assert_eq!(
        message(WHOLE, &["policy.revision=main"]),
        "policy.revision = main in --set policy.revision=main does not go together with the rest: policy.model is a folder, which \
         has no revisions; remove it"
    );
}

#[test]
fn adapters_out_of_range_are_named_with_their_domain() {
    let lora = |change: &str| message(WHOLE, &["policy.lora={ rank = 8, alpha = 16, targets = [\"q_proj\"] }", change]);
    for (change, expected) in [
        (
            "policy.lora.rank=0",
            "policy.lora.rank = 0 in --set policy.lora.rank=0 is not valid: expected an integer of at least 1",
        ),
        (
            "policy.lora.alpha=0",
            "policy.lora.alpha = 0 in --set policy.lora.alpha=0 is not valid: expected a number above 0",
        ),
        (
            "policy.lora.dropout=1",
            "policy.lora.dropout = 1 in --set policy.lora.dropout=1 is not valid: expected a number of at least 0 and below 1",
        ),
        (
            "policy.lora.targets=[]",
            "policy.lora.targets = [] in --set policy.lora.targets=[] is not valid: expected a list with at least one of texts",
        ),
    ] {
        assert_eq!(lora(change), expected);
    }
    assert!(message(WHOLE, &["policy.lora={ rank = 8 }"]).contains("missing key policy.lora.alpha"));
}

#[test]
fn names_of_judges_name_folders_and_nothing_else() {
    for name in ["../../etc", "a/b", ".hidden", "", "a b"] {
        let text = format!("{LEAST}[[judge]]\nname = {name:?}\nkind = \"oracle\"\n");
        let message = message(&text, &[]);
        assert!(message.contains("judge.1.name") && message.contains("is not valid"), "{name:?}: {message}");
    }
}

#[test]
fn judges_that_do_not_exist_are_named() {
    assert_eq!(
        message(WHOLE, &["feedback.judge=mian", "eval.judge=main"]),
        "feedback.judge = \"mian\" in --set feedback.judge=mian is not known; did you mean main?; known are main"
    );
    assert_eq!(
        message(WHOLE, &["eval.judge=gold"]),
        "eval.judge = \"gold\" in --set eval.judge=gold is not known; known are main"
    );
    let two = format!("{LEAST}[[judge]]\nname = \"gold\"\nkind = \"oracle\"\n");
    assert_eq!(
        message(&two, &[]),
        "missing key feedback.judge in conf/run.toml:8: write the name of one of the judges, because there are several"
    );
    let twice = format!("{LEAST}[[judge]]\nname = \"main\"\nkind = \"oracle\"\n");
    assert_eq!(
        message(&twice, &["feedback.judge=main"]),
        "judge.1.name = main in conf/run.toml:13 does not go together with the rest: another judge has the same name; give \
         each its own"
    );
    assert_eq!(
        message(WHOLE, &["judge.gold.scale=2"]),
        "unknown key judge.gold.scale in --set judge.gold.scale=2; did you mean judge.main?"
    );
}

#[test]
fn rules_are_checked() {
    assert_eq!(
        message(&changed("\"the end\"", "\"(the end\""), &[]),
        "judge.0.rules.1.pattern = \"(the end\" in conf/run.toml:35 is not valid: expected a regular expression (unclosed \
         group)"
    );
    assert_eq!(
        message(&changed("max = 50", "max = 10"), &[]),
        "judge.0.rules.2.length.max = 10 in conf/run.toml:36 does not go together with the rest: it is below length.min = \
         20; no answer can have that length"
    );
}

#[test]
fn matrices_that_do_not_fit_are_named() {
    let with = |patterns: &str, preference: &str, sets: &[&str]| {
        let judge =
            format!("[[judge]]\nname = \"m\"\nkind = \"matrix\"\npatterns = {patterns}\npreference = {preference}\n");
        message(&format!("{LEAST}{judge}"), &[&["feedback.judge=m"], sets].concat())
    };
    let text = with("[\"a\", \"b\"]", "[[0.5]]", &[]);
    assert!(text.contains("preference = 1 rows") && text.contains("write 2 rows of 2 numbers"), "{text}");
    let text = with("[\"a\", \"b\"]", "[[0.5, 0.9], [0.2, 0.5]]", &[]);
    assert!(text.contains("0.2 in row 1, column 0 and 0.9 crosswise"), "{text}");
    let text = with("[\"(\"]", "[[0.5]]", &[]);
    assert!(text.contains("judge.1.patterns.0"), "{text}");
    let text = with("[\"a\"]", "[[0.5]]", &["feedback.ask=score"]);
    assert!(text.starts_with("feedback.ask = score") && text.contains("has no scores"), "{text}");
}

/// What is set, the key that is named, and a part of the reason.
type Case<'a> = (Vec<&'a str>, &'a str, &'a str);

fn say_why(cases: &[Case<'_>]) {
    for (sets, key, reason) in cases {
        let text = message(WHOLE, sets);
        assert!(text.starts_with(key) && text.contains(reason) && text.lines().count() == 1, "{sets:?}: {text}");
    }
}

#[test]
fn impossible_combinations_say_why() {
    say_why(&[
        (vec!["deterministic=true"], "pipeline.max_staleness = 1", "deterministic = true needs 0"),
        (
            vec!["deterministic=true", "pipeline.max_staleness=0", "eval.stop.max_seconds=9"],
            "eval.stop.max_seconds = 9",
            "where a clock ends the run differs each time",
        ),
        (vec!["sampling.num_generations=4"], "sampling.players = 2 entries", "sampling.num_generations is 4"),
        (vec!["sampling.players=[\"policy\"]"], "sampling.players = 1 entry", "one answer leaves nothing to compare"),
        (vec!["pairing.replay.ratio=0.5"], "pairing.replay.ratio = 0.5", "a capacity of 0 keeps nothing to replay"),
        (vec!["loss.delta=1.0"], "loss.delta = set", "the loss dpo has no such key, it has beta and label_smoothing"),
        (
            vec![
                "loss={name=\"bonbon\", n=2.5}",
                "sampling.players=[\"reference\", \"reference\"]",
                "eval.stop.max_kl=0",
            ],
            "loss.n = 2.5",
            "expected a whole number of at least 2 and below 1000; the default of bonbon is 8",
        ),
        (vec!["loss.name=slic_hf"], "loss.beta = set", "the loss slic_hf has no such key, it has delta and lambda"),
        (
            vec!["learner.warmup_steps=5", "learner.warmup_ratio=0.1"],
            "learner.warmup_ratio = 0.1",
            "learner.warmup_steps is 5 already",
        ),
        (vec!["learner.warmup_steps=121"], "learner.warmup_steps = 121", "the run has 120 steps"),
        (vec!["data.eval_prompts=held.jsonl"], "data.eval_fraction = 0.05", "write one of the two keys"),
        (vec!["data.eval_fraction=0"], "eval.every = 20", "there are no held-out prompts"),
        (vec!["eval.every=0"], "eval.every = 0", "can stop nothing"),
    ]);
}

#[test]
fn combinations_that_make_a_method_another_one_say_why() {
    let matrix = "judge=[{ name = \"main\", kind = \"matrix\", patterns = [\"a\", \"b\"], preference = [[0.5, 1.0], [0.0, 0.5]] }]";
    say_why(&[
        (
            vec!["reference.kind=previous", "eval.stop.max_kl=0", "pipeline.max_staleness=0"],
            "reference.kind = previous",
            "the reference would be the policy itself at every gradient",
        ),
        (
            vec!["reference.kind=previous", "learner.epochs_per_iteration=2", "eval.stop.max_kl=0"],
            "pipeline.max_staleness = 1",
            "held to a newer reference",
        ),
        (
            vec![
                "loss={name=\"bonbon\", n=8}",
                "sampling.players=[\"reference\", \"reference\"]",
                "eval.stop.max_kl=0",
            ],
            "loss.n = 8",
            "the prompt has 2 answers",
        ),
        (vec!["loss={name=\"bonbon\"}"], "sampling.players = policy, policy", "the best of n answers of the reference"),
        (
            vec!["sampling.players=[\"mixture\", \"mixture\"]"],
            "eval.stop.max_kl = 50",
            "measured on the policy's own answers",
        ),
        (
            vec![matrix, "sampling.missing_eos_penalty=1"],
            "sampling.missing_eos_penalty = 1",
            "which no finite penalty moves",
        ),
    ]);
}

#[test]
fn what_a_loss_cannot_read_says_why() {
    say_why(&[
        (vec!["loss={name=\"xpo\"}"], "loss.name = xpo", "explores away from one answer of the reference"),
        (
            vec!["loss={name=\"sppo\"}"],
            "pairing.select = best_worst",
            "the loss sppo reads win rates; use \"win_rate\"",
        ),
        (
            vec!["pairing.select=win_rate"],
            "pairing.select = win_rate",
            "the loss dpo reads pairs of answers; use \"best_worst\" or",
        ),
        (
            vec![
                "reference.kind=previous",
                "learner.iteration_steps=8",
                "eval.stop.max_kl=0",
                "pairing.replay={ ratio = 0.5, capacity = 9 }",
            ],
            "pairing.replay.ratio = 0.5",
            "held to a newer reference than its own",
        ),
        (
            vec!["reference.kind=previous", "learner.iteration_steps=8", "eval.stop={ max_kl = 9.0 }"],
            "eval.stop.max_kl = 9",
            "the KL is measured against the reference",
        ),
        (
            vec!["loss={name=\"nash_md\"}", "pairing.select=opponent"],
            "sampling.players = policy, policy",
            "nash_md trains the policy's answer against another player's",
        ),
        (
            vec!["loss={name=\"rloo\"}", "pairing.select=single", "sampling.players=[\"policy\", \"mixture\"]"],
            "sampling.players = policy, mixture",
            "rloo is a policy gradient and trains on the policy's own answers only",
        ),
        (
            vec!["loss={name=\"grpo\"}", "pairing.select=single", "sampling.temperature=0.7"],
            "sampling.temperature = 0.7",
            "grpo is a policy gradient: its answers must be drawn as they are scored; set 1",
        ),
        (
            vec!["loss={name=\"rloo\"}", "pairing={ select = \"single\", replay = { ratio = 0.5, capacity = 9 } }"],
            "pairing.replay.ratio = 0.5",
            "rloo is a policy gradient and needs fresh answers",
        ),
    ]);
}

#[test]
fn a_judge_that_learns_needs_another() {
    let two = |gold: &str| {
        format!("{LEAST}[[judge]]\nname = \"rm\"\nkind = \"learned\"\ngold = \"{gold}\"\nmodel = \"rm\"\n")
    };
    let sets = ["feedback.judge=rm", "eval.judge=main"];
    assert!(run(&two("main"), &sets).is_ok());
    for gold in ["rm", "nobody"] {
        let text = message(&two(gold), &sets);
        assert!(
            text.starts_with(&format!("judge.1.gold = {gold}")) && text.contains("one that does not learn"),
            "{text}"
        );
    }
    let text = message(&two("main"), &["feedback.judge=main", "eval.judge=rm"]);
    assert!(text.starts_with("eval.judge = rm") && text.contains("evaluate with its teacher, \"main\""), "{text}");
    let exact = ["feedback.judge=rm", "eval.judge=main", "deterministic=true", "pipeline.max_staleness=0"];
    assert!(message(&two("main"), &exact).contains("depends on when it was asked"));
}

#[test]
fn choices_of_answers_that_need_others_say_why() {
    say_why(&[
        (
            vec!["sampling.players=[\"policy\", \"styled\"]"],
            "sampling.style = \"\"",
            "write the text that comes before its prompts",
        ),
        (vec!["sampling.style=Be brief."], "sampling.style = \"Be brief.\"", "no player reads it"),
        (vec!["sampling.annotate=1"], "sampling.annotate = 1", "2 to 2 can be judged"),
        (
            vec!["sampling={ players=[\"policy\", \"ema\"], annotate=2 }"],
            "sampling.annotate = 2",
            "it may leave one player without an answer",
        ),
        (
            vec!["feedback.rationale.weight=0.1", "judge=[{ name=\"main\", kind=\"oracle\", words={ a=1.0 } }]"],
            "feedback.rationale.weight = 0.1",
            "the judge writes no reasons",
        ),
        (vec!["sampling.revision.request=Again."], "sampling.revision = set", "no player reads it"),
        (
            vec!["sampling={ players=[\"policy\", \"policy\", \"revised\"] }"],
            "sampling.revision.request = \"\"",
            "write what asks for a better answer",
        ),
        (
            vec!["sampling={ players=[\"policy\", \"revised\", \"policy\"], revision={ request=\"Again.\" } }"],
            "sampling.players = policy, revised, policy",
            "revised answers come last, after two or more",
        ),
        (vec!["sampling.annotate_by=margin"], "sampling.annotate_by = margin", "set sampling.annotate to 2 or more"),
        (
            vec![
                "sampling={ players=[\"policy\"], num_generations=4, annotate=2, annotate_by=\"margin\" }",
                "reference.kind=none",
                "eval.stop.max_kl=0",
                "loss={name=\"simpo\"}",
            ],
            "sampling.annotate_by = margin",
            "it is measured against the reference",
        ),
        (
            vec![
                "sampling={ players=[\"past\"], num_generations=4, annotate=2, annotate_by=\"margin\" }",
                "eval.stop.max_kl=0",
            ],
            "sampling.annotate_by = margin",
            "the policy's own answers",
        ),
    ]);
}

#[test]
fn choices_that_need_others_say_why() {
    say_why(&[
        (
            vec!["reference.kind=none", "eval.stop.max_kl=0"],
            "reference.kind = none",
            "the loss dpo compares with a reference",
        ),
        (
            vec![
                "reference.kind=none",
                "eval.stop.max_kl=0",
                "loss={name=\"simpo\"}",
                "sampling.players=[\"policy\", \"reference\"]",
            ],
            "reference.kind = none",
            "the player reference answers with it",
        ),
        (
            vec!["loss={name=\"pmpo\"}", "pairing.select=list"],
            "loss.name = pmpo",
            "add \"reference\" to sampling.players",
        ),
        (
            vec!["loss={name=\"kto\"}", "pairing.select=single", "learner.prompts_per_step=1"],
            "learner.prompts_per_step = 1",
            "kto compares each prompt with the answers of another",
        ),
        (
            vec!["loss={name=\"kto\"}", "pairing={ select=\"single\", keep={ share=0.5 } }"],
            "pairing.keep.share = 0.5",
            "it chooses among pairs, and the loss kto reads single answers",
        ),
        (
            vec!["loss={name=\"kto\"}", "pairing={ select=\"single\", weights=[\"wpo\"] }"],
            "pairing.weights = wpo",
            "it weighs pairs",
        ),
        (
            vec!["loss={name=\"cringe\", k=0.5}"],
            "loss.k = 0.5",
            "expected a whole number of at least 1 and below 1000; the default of cringe is 5",
        ),
        (vec!["loss={name=\"odpo\"}"], "loss.name = odpo", "only feedback.ask = \"score\" gives"),
    ]);
}

#[test]
fn bad_toml_and_bad_overrides_are_named() {
    let text = message("schema = 1\nname = \n", &[]);
    assert!(text.starts_with("conf/run.toml:2: not valid TOML: "), "{text}");
    let text = message("schema = 1\nschema = 1\n", &[]);
    assert!(text.starts_with("conf/run.toml:2: not valid TOML: duplicate key"), "{text}");
    for bad in ["loss.beta", "=1", "loss..beta=1"] {
        assert_eq!(
            message(WHOLE, &[bad]),
            format!("override {bad:?} is not of the form key=value, for example loss.beta=0.2")
        );
    }
}

#[test]
fn several_problems_are_told_at_once() {
    let text = message(WHOLE, &["learner.stesp=1", "loss.beta=-1", "data.shuffle=no"]);
    assert_eq!(text.lines().count(), 3, "{text}");
}

#[test]
fn names_that_a_folder_cannot_hold_are_refused() {
    let text = message(WHOLE, &["name=../x"]);
    assert!(text.starts_with("name = \"../x\" in --set name=../x is not valid: expected text that matches"), "{text}");
}
