//! Templates that users met: each kind of fault once.

use serde_json::{Value, json};

use super::{failure, folder, render, template};
use crate::template::{ChatTemplate, Conversation, RenderOptions};

fn ask() -> Value {
    json!([{ "role": "user", "content": "Tell of a kite." }, { "role": "assistant", "content": "It flew." }])
}

fn text(source: &str) -> String {
    render(&template(source), &ask()).unwrap().text
}

#[test]
fn generation_blocks_write_what_they_have_and_mark_it() {
    let source = "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% else %}\
        [é]{% generation %}{{ m.content }}!{% endgeneration %}{% endif %}{% endfor %}";
    let template = template(source);
    let rendered = render(&template, &ask()).unwrap();
    assert!(template.has_generation());
    assert_eq!(rendered.text, "Tell of a kite.[é]It flew.!");
    let range = rendered.assistant[0].clone();
    assert_eq!(&rendered.text[range], "It flew.!");
    assert!(!super::template("{{ '{% generation %}' }}").has_generation());
}

#[test]
fn loops_break_and_continue() {
    assert_eq!(
        text("{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}{{ m.role }}{% endfor %}"),
        "user"
    );
    assert_eq!(
        text("{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m.role }}{% endfor %}"),
        "assistant"
    );
}

#[test]
fn tools_and_documents_are_none_where_they_are_not_given() {
    assert_eq!(text("{{ tools is none }}{{ documents is none }}{{ tools is defined }}"), "TrueTrueTrue");
    assert_eq!(text("{% if tools is not none %}[TOOLS]{% endif %}{{ tools is iterable }}"), "False");
}

#[test]
fn json_is_written_as_python_writes_it() {
    let source = "{{ {'b': '<&>\\'é', 'a': [1, none, true]} | tojson }}";
    assert_eq!(text(source), r#"{"b": "<&>'é", "a": [1, null, true]}"#);
}

#[test]
fn errors_never_have_the_contents_of_messages() {
    let secret = "My card is 4111 1111 1111 1111";
    let call = json!({ "function": { "name": "pay", "arguments": { "card": "4111" } } });
    let messages = json!([{ "role": "user", "content": secret, "tool_calls": [call] }]);
    let sources = [
        "{{ raise_exception('Bad message: ' ~ messages[0].content) }}",
        "{{ raise_exception('Bad ' ~ messages[0].content[:14] ~ '!') }}",
        "{{ raise_exception(messages) }}",
        "{{ raise_exception(messages[0].tool_calls | tojson) }}",
        "{{ messages[0].content.missing() }}",
        "{{ messages[0].content + 1 }}",
        "{{ messages[0][messages[0].content].x }}",
        "{{ messages[0].content | int + messages }}",
        "{{ messages | map(messages[0].content) | list }}",
        "{{ messages | select(messages[0].content) | list }}",
        "{{ '%d' % messages[0].content }}",
        "{{ '{:d}'.format(messages[0].content) }}",
        "{{ messages[0].content.format() ~ ('{' ~ messages[0].content ~ '}').format() }}",
        "{{ dict(**{messages[0].content: 1}).x.y }}",
        "{{ range(messages[0].content) }}",
        "{{ {}[messages[0].content] + 1 }}",
        "{{ messages[0].content | round }}",
        "{% macro m() %}{% endmacro %}{{ m(**{messages[0].content: 1}) }}",
        "{{ 'a' | replace(**{messages[0].content: 1}) }}",
        "{{ ''.index(messages[0].content) }}",
        "{% set a, b = messages[0].content %}",
        "{{ messages[0].content | attr('x') + 1 }}",
        "{{ [messages[0].content] | sum }}",
        "{{ namespace(**{messages[0].content: 1}).x.y }}",
    ];
    for source in sources {
        let error = failure(source, &messages);
        assert!(!error.contains("4111") && !error.contains("card"), "{source}: {error}");
        assert!(error.contains("template default, line 1"), "{source}: {error}");
    }
}

#[test]
fn raised_texts_of_the_template_are_shown_and_cut() {
    let error = failure("\n{{ raise_exception('Roles must alternate') }}", &ask());
    assert!(error.ends_with("template default, line 2: it raised an exception: Roles must alternate"), "{error}");
    let error = failure("{{ raise_exception('x y ' * 500) }}", &ask());
    assert!(error.len() < 400, "{error}");
}

#[test]
fn broken_templates_are_errors_that_name_the_line() {
    for (source, line) in [("a\n{% if x %}\n", "line 2"), ("a\n\n{{ x y }}", "line 3"), ("{% unknown %}", "line 1")] {
        let folder = folder(source);
        let error = ChatTemplate::find(folder.path(), &json!({})).unwrap_err().to_string();
        let path = folder.path().to_string_lossy().into_owned();
        assert!(error.contains(line) && error.contains(&path) && error.contains("default"), "{error}");
    }
}

#[test]
fn unreadable_templates_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("chat_template.jinja")).unwrap();
    ChatTemplate::find(folder.path(), &json!({ "chat_template": "x" })).unwrap_err();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("chat_template.jinja"), b"\xff\xfe").unwrap();
    let error = ChatTemplate::find(folder.path(), &json!({})).unwrap_err().to_string();
    assert!(error.contains("not UTF-8"), "{error}");
    let malformed = [json!(5), json!([1]), json!([{ "name": "default" }]), json!({ "default": 1 })];
    for config in malformed {
        let folder = tempfile::tempdir().unwrap();
        ChatTemplate::find(folder.path(), &json!({ "chat_template": config })).unwrap_err();
    }
}

#[test]
fn conversations_that_cannot_be_are_refused_before_rendering() {
    let template = template("{{ messages[0].content }}");
    let refused = |conversation: Conversation, options: RenderOptions| {
        template.render(&conversation, options).unwrap_err().to_string()
    };
    let messages = [json!({ "role": "user", "content": "x" })];
    let (number, texts) = (json!(5), json!(["x"]));
    let given = Conversation { messages: &messages, ..Conversation::default() };
    let both = RenderOptions { add_generation_prompt: true, continue_final_message: true };
    assert!(refused(Conversation::default(), RenderOptions::default()).contains("no messages"));
    assert!(refused(given, both).contains("exclude each other"));
    assert!(refused(Conversation { tools: Some(&number), ..given }, RenderOptions::default()).contains("tools"));
    assert!(refused(Conversation { documents: Some(&texts), ..given }, RenderOptions::default()).contains("documents"));
}
