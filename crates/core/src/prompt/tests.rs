use super::*;
use crate::{decode, encode};

fn object(value: Value) -> Map<String, Value> {
    value.as_object().expect("an object").clone()
}

fn message(value: Value) -> Message {
    Message::try_from(object(value)).expect("a message")
}

#[test]
fn messages_keep_all_fields_through_records_and_bad_ones_are_named() {
    let call = message(json!({"role": "assistant", "content": null, "tool_calls": [{"function": {"z": 1, "a": 2.5}}]}));
    let parts =
        message(json!({"content": [{"type": "text", "text": "Hi"}, {"type": "image"}], "role": "user", "name": "ann"}));
    let chat = Chat { tools: Some(json!([{"z": 1, "a": {}}])), ..vec![parts.clone(), call.clone()].into() };
    for prompt in [Prompt::Chat(chat), Prompt::Chat(vec![parts.clone(), call.clone()].into()), Prompt::Text("t".into())]
    {
        let found: Prompt = decode("prompt", &encode(&prompt)).expect("decodes");
        let text = |prompt: &Prompt| serde_json::to_string(prompt).expect("JSON");
        assert_eq!(text(&found), text(&prompt), "with the order of the keys");
    }
    assert_eq!(parts.display(), "user: Hi[image]\nname: ann");
    assert_eq!(call.display(), "assistant: \ntool_calls: [{\"function\":{\"z\":1,\"a\":2.5}}]");
    let bad = [
        (json!({"content": "x"}), "role is missing"),
        (json!({"role": 3, "content": "x"}), "role is a number"),
        (json!({"role": "user"}), "content is missing"),
        (json!({"role": "user", "content": null, "tool_calls": null}), "content is null"),
        (json!({"role": "user", "content": {"a": "private"}}), "content is an object"),
        (json!({"role": "user", "content": [3]}), "content[0] is a number"),
    ];
    for (value, problem) in bad {
        let error = Message::try_from(object(value)).expect_err("refused").to_string();
        assert!(error.contains(problem) && !error.contains("private"), "{error}");
    }
}

#[test]
fn answers_go_behind_or_on() {
    let user = Message::new("user", "Hi");
    let chat: Chat = vec![user.clone()].into();
    let open = chat.with([Message::new("assistant", "We")]);
    assert_eq!(chat.answered(&" ell".into()).messages, [user.clone(), Message::new("assistant", " ell")]);
    assert_eq!(open.answered(&"ll.".into()).messages, [user.clone(), Message::new("assistant", "Well.")]);
    let instructed = chat.instructed("Be short.", "\n").instructed("Be sad.", "\n");
    assert_eq!(instructed.messages, [Message::new("system", "Be sad.\nBe short."), user]);
}
