use joust_core::{
    Answer, Chat, Completion, DropReason, Example, ExampleSource, Finish, Judgement, JudgementStatus, JudgementValue,
    Manifest, Message, ModelRef, ModelSet, Outcome, Player, Prompt, PromptTask, Provenance, Purpose, Rationale,
    RecordId, Rollout, SCHEMA, Target,
};
use proptest::{collection::vec, option, prelude::*, sample::select};
use prost::Message as _;
use serde_json::json;

use crate::{Error, common::v1 as wire};

/// Encodes, decodes and parses; what comes back must be what was sent.
fn over_the_wire<T, W>(record: T) -> Result<T, Error>
where
    W: From<T> + TryInto<T, Error = Error> + prost::Message + Default,
{
    W::decode(&W::from(record).encode_to_vec()[..]).expect("protobuf").try_into()
}

fn id() -> impl Strategy<Value = RecordId> {
    any::<[u8; 16]>().prop_map(RecordId::from_bytes)
}

fn digest() -> impl Strategy<Value = String> {
    "[0-9a-f]{64}"
}

fn prompt() -> impl Strategy<Value = Prompt> {
    let plain = (".{1,8}", ".{0,20}").prop_map(|(role, content)| Message::new(role, content));
    let call = (".{1,8}", any::<i32>()).prop_map(|(name, number)| {
        let call = json!({"z": number, "a": [null, 0.5, {"name": name}]});
        let fields = json!({"role": "assistant", "content": null, "tool_calls": [call], "name": name});
        Message::try_from(fields.as_object().expect("an object").clone()).expect("a message")
    });
    let message = prop_oneof![plain, call];
    let chat = (vec(message, 1..4), any::<bool>()).prop_map(|(messages, more)| Chat {
        messages,
        tools: more.then(|| json!([{"z": 1, "a": {}}])),
        documents: more.then(|| json!([])),
        chat_template_kwargs: more.then(|| json!({"thinking": false}).as_object().expect("an object").clone()),
    });
    prop_oneof![".{0,20}".prop_map(Prompt::Text), chat.prop_map(Prompt::Chat)]
}

fn model() -> impl Strategy<Value = ModelRef> {
    (any::<u64>(), any::<u64>(), digest()).prop_map(|(generation, version, hash)| ModelRef {
        generation,
        version,
        hash,
    })
}

fn player() -> impl Strategy<Value = Player> {
    use Player::{Ema, Mixture, Past, Policy, Reference, Revised, Styled};
    select(vec![Policy, Reference, Mixture, Ema, Past, Styled, Revised])
}

fn purpose() -> impl Strategy<Value = Purpose> {
    select(vec![Purpose::Train, Purpose::Eval, Purpose::ByHand])
}

fn finish() -> impl Strategy<Value = Finish> {
    select(vec![Finish::Eos, Finish::Length])
}

fn tokens() -> impl Strategy<Value = (Vec<u32>, Vec<f32>)> {
    vec((any::<u32>(), -50.0f32..0.0), 0..6).prop_map(|tokens| tokens.into_iter().unzip())
}

fn task() -> impl Strategy<Value = PromptTask> {
    (id(), any::<[u64; 3]>(), purpose(), prompt()).prop_map(|(id, [position, epoch, row], purpose, prompt)| {
        PromptTask { schema: SCHEMA, id, position, epoch, row, purpose, prompt }
    })
}

fn completion() -> impl Strategy<Value = Completion> {
    (player(), model(), tokens(), ".{0,20}", finish()).prop_map(
        |(player, model, (token_ids, logprobs), text, finish)| Completion {
            sample_index: 0,
            player,
            model,
            token_ids,
            logprobs,
            text,
            finish,
        },
    )
}

fn rollout() -> impl Strategy<Value = Rollout> {
    (id(), task(), vec(any::<u32>(), 0..6), vec((completion(), 1u32..5), 0..4)).prop_map(
        |(id, task, prompt_ids, drawn)| {
            let mut next = 0;
            let completions = drawn.into_iter().map(|(completion, gap)| {
                next += gap;
                Completion { sample_index: next, ..completion }
            });
            Rollout { schema: SCHEMA, id, task, prompt_ids, completions: completions.collect() }
        },
    )
}

fn matrix() -> impl Strategy<Value = Vec<f64>> {
    vec(0.0..=1.0, 9).prop_map(|draws| {
        let cell = |i: usize, j: usize| match i.cmp(&j) {
            std::cmp::Ordering::Equal => 0.5,
            std::cmp::Ordering::Less => draws[i * 3 + j],
            std::cmp::Ordering::Greater => 1.0 - draws[j * 3 + i],
        };
        (0..9).map(|at| cell(at / 3, at % 3)).collect()
    })
}

fn judgement() -> impl Strategy<Value = Judgement> {
    use JudgementStatus::{Deadline, InvalidInput, Ok, ParseFailed, Refused, Unavailable};
    let value = prop_oneof![
        vec(-1e6..1e6, 0..5).prop_map(JudgementValue::Scores),
        (0.0..=1.0).prop_map(JudgementValue::Preference),
        matrix().prop_map(JudgementValue::Matrix),
    ];
    let status = select(vec![Ok, ParseFailed, Refused, Deadline, Unavailable, InvalidInput]);
    let provenance = (".{0,9}", digest(), any::<u32>());
    (status, option::of(".{0,9}"), value, vec(".{0,9}", 0..3), provenance).prop_map(
        |(status, detail, value, notes, (judge, config_hash, retries))| Judgement {
            status,
            detail,
            value: (status == Ok).then_some(value),
            notes,
            provenance: Provenance { judge, config_hash, backend: "rule".into(), retries },
        },
    )
}

fn answer() -> impl Strategy<Value = Answer> {
    (player(), tokens(), any::<bool>(), finish(), option::of(-9.0..9.0)).prop_map(
        |(player, (token_ids, logprobs), offline, finish, score)| Answer {
            player,
            token_ids,
            behavior_logprobs: if offline { Vec::new() } else { logprobs },
            finish,
            score,
        },
    )
}

fn example() -> impl Strategy<Value = Example> {
    let target = prop_oneof![
        (0.0..=1.0, option::of([0.0..=1.0, 0.0..=1.0])).prop_map(|(p, win_rates)| Target::Pair { p, win_rates }),
        (0.0..=1.0).prop_map(|p| Target::Opponent { p }),
        vec(0.0..=1.0, 1..4).prop_map(|win_rates| Target::Group { win_rates }),
    ];
    let rationale = option::of((prompt(), ".{0,9}").prop_map(|(prompt, text)| Rationale { prompt, text }));
    let source = select(vec![ExampleSource::Online, ExampleSource::Offline, ExampleSource::Human]);
    let numbers = (0.0..4.0, any::<u64>(), source, digest());
    (id(), vec(any::<u32>(), 0..6), vec(answer(), 4), target, rationale, numbers).prop_map(
        |(id, prompt_ids, mut answers, target, rationale, (weight, policy_version, source, judge_hash))| {
            answers.truncate(match &target {
                Target::Pair { .. } => 2,
                Target::Opponent { .. } => 1,
                Target::Group { win_rates } => win_rates.len(),
            });
            Example { id, prompt_ids, answers, target, rationale, weight, policy_version, source, judge_hash }
        },
    )
}

fn reason() -> impl Strategy<Value = DropReason> {
    use DropReason::{DeadLetter, Filtered, Identical, InvalidPrompt, JudgementFailed, Stale, Tie};
    select(vec![Tie, Identical, JudgementFailed, DeadLetter, Stale, Filtered, InvalidPrompt])
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let numbers = (vec(-9.0..9.0, 0..4), 0.0..=1.0, 0.0..999.0);
    let left_out = vec((reason(), any::<u32>()), 0..3);
    (id(), any::<u64>(), purpose(), vec(example(), 0..3), reason(), left_out, numbers).prop_map(
        |(id, position, purpose, examples, reason, left_out, (scores, eos_share, mean_tokens))| Outcome {
            schema: SCHEMA,
            id,
            position,
            purpose,
            dropped: examples.is_empty().then_some(reason),
            examples,
            left_out,
            scores,
            eos_share,
            mean_tokens,
        },
    )
}

fn manifest() -> impl Strategy<Value = Manifest> {
    (any::<[u64; 4]>(), vec(vec(id(), 0..4), 0..4), vec(id(), 0..3), digest()).prop_map(
        |([step, epoch, reference_version, seed], micro_batches, replayed, settings_hash)| Manifest {
            schema: SCHEMA,
            step,
            epoch,
            micro_batches,
            replayed,
            reference_version,
            seed,
            settings_hash,
        },
    )
}

proptest! {
    #[test]
    fn records_come_back_as_they_were_sent(
        rollout in rollout(),
        judgement in judgement(),
        outcome in outcome(),
        manifest in manifest(),
        models in (model(), model(), option::of(model()), vec(model(), 0..3)),
    ) {
        let (policy, reference, ema, past) = models;
        let set = ModelSet { policy, reference, ema, past };
        prop_assert_eq!(over_the_wire::<_, wire::Rollout>(rollout.clone()), Ok(rollout));
        prop_assert_eq!(over_the_wire::<_, wire::Judgement>(judgement.clone()), Ok(judgement));
        prop_assert_eq!(over_the_wire::<_, wire::Outcome>(outcome.clone()), Ok(outcome));
        prop_assert_eq!(over_the_wire::<_, wire::Manifest>(manifest.clone()), Ok(manifest));
        prop_assert_eq!(over_the_wire::<_, wire::ModelSet>(set.clone()), Ok(set));
    }

    /// Whatever arrives either is refused with a field, or is a record that its own message gives back.
    #[test]
    fn damaged_messages_are_refused_or_valid(
        outcome in outcome(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = wire::Outcome::from(outcome).encode_to_vec();
        let place = at.index(bytes.len());
        bytes[place] = byte;
        let Ok(message) = wire::Outcome::decode(&bytes[..]) else { return Ok(()) };
        match Outcome::try_from(message) {
            Ok(record) => prop_assert_eq!(over_the_wire::<_, wire::Outcome>(record.clone()), Ok(record)),
            Err(error) => prop_assert!(!error.field().is_empty()),
        }
    }
}

fn pair() -> wire::PreferenceExample {
    let answer = || wire::Answer {
        player: wire::Player::Policy.into(),
        token_ids: vec![7, 8],
        behavior_logprobs: vec![-0.5, -0.25],
        finish: wire::Finish::Eos.into(),
        score: None,
    };
    let target = wire::target::Kind::Pair(wire::PairTarget { p: 1.0, win_rates: vec![] });
    wire::PreferenceExample {
        id: vec![1; 16],
        prompt_ids: vec![3],
        answers: vec![answer(), answer()],
        target: Some(wire::Target { kind: Some(target) }),
        weight: 1.0,
        source: wire::ExampleSource::Online.into(),
        ..Default::default()
    }
}

#[test]
fn errors_name_field_value_and_what_is_wanted() {
    type Change = fn(&mut wire::PreferenceExample);
    let cases: [(Change, &str); 9] = [
        (|e| e.id.truncate(5), "field id is 5 bytes, expected a record id of 16 bytes"),
        (|e| e.weight = f64::NAN, "field weight is NaN, expected a finite number, at least 0"),
        (|e| e.target = None, "field target is missing, expected a message"),
        (|e| e.source = 0, "field source is unspecified, expected one of its values"),
        (|e| e.answers[1].player = 99, "field answers[1].player is 99, expected a value that this version knows"),
        (|e| drop(e.answers.pop()), "field answers is 1 entries, expected 2"),
        (|e| e.answers[0].behavior_logprobs.truncate(1), "field answers[0].behavior_logprobs is 1 entries, expected 2"),
        (
            |e| e.answers[1].behavior_logprobs[1] = f32::INFINITY,
            "field answers[1].behavior_logprobs[1] is inf, expected a finite number",
        ),
        (
            |e| {
                let kind = wire::target::Kind::Pair(wire::PairTarget { p: 1.5, win_rates: vec![] });
                e.target = Some(wire::Target { kind: Some(kind) });
            },
            "field target.pair.p is 1.5, expected a number in [0, 1]",
        ),
    ];
    assert!(Example::try_from(pair()).is_ok());
    for (change, wanted) in cases {
        let mut message = pair();
        change(&mut message);
        let error = Example::try_from(message).expect_err(wanted).to_string();
        assert!(error.starts_with(wanted), "{error}");
    }
}

#[test]
fn a_failed_judgement_holds_no_number_and_an_ok_one_does() {
    let mut message = wire::Judgement {
        status: wire::JudgementStatus::Refused.into(),
        value: Some(wire::judgement::Value::Preference(0.5)),
        provenance: Some(wire::Provenance::default()),
        ..Default::default()
    };
    let error = Judgement::try_from(message.clone()).expect_err("refused");
    assert_eq!(error.to_string(), "field value is set, expected none, since the status is not OK");
    message.status = wire::JudgementStatus::Ok.into();
    assert!(Judgement::try_from(message.clone()).is_ok());
    message.value = None;
    assert!(Judgement::try_from(message.clone()).is_err());
    let lopsided = wire::PreferenceMatrix { values: vec![0.5, 0.9, 0.2, 0.5] };
    message.value = Some(wire::judgement::Value::Matrix(lopsided));
    let error = Judgement::try_from(message).expect_err("refused");
    assert_eq!(error.to_string(), "field matrix.values[2] is 0.2, expected 1 - 0.9, what row 0 says of column 1");
}

#[test]
fn a_text_that_is_too_long_does_not_stand_in_the_error() {
    let long = "secret".repeat(crate::limits::MAX_TEXT_BYTES / 6 + 1);
    let error = Prompt::try_from(wire::Prompt { kind: Some(wire::prompt::Kind::Text(long)) }).expect_err("refused");
    assert!(!error.to_string().contains("secret"), "{error}");
    assert_eq!(error.field(), "text");
}

#[test]
fn messages_with_more_than_text_say_what_is_wrong() {
    let message = |role: &str, content: &str, object: &str| wire::Message {
        role: role.into(),
        content: content.into(),
        object: object.into(),
    };
    let called = r#"{"content": null, "tool_calls": [{"b": 1, "a": 2}], "role": "assistant"}"#;
    let found = Message::try_from(message("assistant", "", called)).expect("a message");
    assert_eq!(
        wire::Message::from(found).object,
        called.replace(": ", ":").replace(", ", ","),
        "in the order of the keys"
    );
    let bad = [
        (message("", "hi", ""), "field role is missing"),
        (message("user", "", called), "field object is another role"),
        (message("assistant", "private", called), "field object is both"),
        (message("user", "", "private"), "field object is other text, expected a JSON object"),
        (message("user", "", r#"{"role": "user", "content": 3}"#), "field object is content is a number"),
        (message(&"r".repeat(65), "hi", ""), "field role is role is a longer text"),
    ];
    for (message, wanted) in bad {
        let error = Message::try_from(message).expect_err(wanted).to_string();
        assert!(error.starts_with(wanted) && !error.contains("private"), "{error}");
    }
    let chat = wire::Chat { messages: vec![message("user", "hi", "")], tools: "{}".into(), ..Default::default() };
    let error = Prompt::try_from(wire::Prompt { kind: Some(wire::prompt::Kind::Chat(chat)) }).expect_err("refused");
    assert_eq!(error.to_string(), "field chat.tools is other text, expected a JSON list");
}
