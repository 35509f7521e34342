//! What a revision asks.

use joust_core::Judgement;

use super::*;

struct Nobody;

#[async_trait::async_trait]
impl Judge for Nobody {
    fn name(&self) -> &str {
        "nobody"
    }

    fn config_hash(&self) -> &str {
        ""
    }

    async fn judge(&self, _: &[JudgeItem], _: &CallContext) -> Vec<Judgement> {
        Vec::new()
    }
}

fn revision() -> Revision {
    Revision {
        judge: Arc::new(Nobody),
        ask: joust_judges::Ask::Score,
        timeout: Duration::from_secs(1),
        feedback: "What is wrong?".into(),
        request: "Again: ".into(),
    }
}

fn draft<'a>(prompt: &'a Prompt, feedback: Option<&str>) -> Draft<'a> {
    Draft { place: 0, prompt, text: " a draft", feedback: feedback.map(str::to_owned) }
}

#[test]
fn texts_say_the_prompt_again() {
    let prompt = Prompt::Text("Once".into());
    let asked = |feedback| revised(&draft(&prompt, feedback), &revision());
    assert_eq!(asked(None), Prompt::Text("Once a draft\n\nAgain: Once".into()));
    let with = "Once a draft\n\nWhat is wrong? Too short.\n\nAgain: Once";
    assert_eq!(asked(Some(" Too short.")), Prompt::Text(with.into()));
    assert_eq!(
        criticised(&draft(&prompt, None), "What is wrong?"),
        Prompt::Text("Once a draft\n\nWhat is wrong?".into())
    );
}

#[test]
fn chats_take_turns() {
    let prompt = Prompt::Chat(vec![Message::new("user", "Hi")].into());
    let expected = [
        ("user", "Hi"),
        ("assistant", " a draft"),
        ("user", "What is wrong?"),
        ("assistant", "Too short."),
        ("user", "Again: "),
    ];
    let expected: Vec<Message> = expected.map(|(role, content)| Message::new(role, content)).to_vec();
    assert_eq!(revised(&draft(&prompt, Some("Too short.")), &revision()), Prompt::Chat(expected.clone().into()));
    assert_eq!(criticised(&draft(&prompt, None), "What is wrong?"), Prompt::Chat(expected[..3].to_vec().into()));
    let [hi, answer, .., again] = expected.as_slice() else { panic!("five messages") };
    let without = Prompt::Chat(vec![hi.clone(), answer.clone(), again.clone()].into());
    assert_eq!(revised(&draft(&prompt, None), &revision()), without);
}
