//! What a template may use: each hostile one is refused quickly, by the name of a bound.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{failure, template};
use crate::template::ChatTemplate;

/// Longest time until a refusal, on a busy machine in an unoptimised build.
const QUICKLY: Duration = Duration::from_secs(20);

/// Templates that take more than they may.
const HOSTILE: &[&str] = &[
    "{{ 'x' * 10**9 }}",
    "{{ [0] * 10**9 }}",
    "{{ 10**9 * 'x' }}",
    "{{ range(10**9) }}",
    "{{ range(0, 10**30) }}",
    "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
    "{% for a in range(100000) %}{% for b in range(100000) %}x{% endfor %}{% endfor %}",
    "{% set ns = namespace(s='xxxxxxxx') %}{% for a in range(64) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
    "{% set ns = namespace(s='xxxxxxxx') %}{% for a in range(64) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
    "{% set ns = namespace(l=[0]) %}{% for a in range(64) %}{% set ns.l = ns.l + ns.l %}{% endfor %}",
    "{% set ns = namespace(l=[0]) %}{% for a in range(64) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l == 1 }}",
    "{% set ns = namespace(l=[0]) %}{% for a in range(99999) %}{% set ns.l = [ns.l] %}{% endfor %}",
    "{% set ns = namespace(d=0) %}{% for a in range(9999) %}{% set ns.d = {'a': ns.d} %}{% endfor %}{{ ns.d }}",
    "{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}",
    "{{ 'a\nb' | indent(10**9) }}",
    "{{ 'a' | center(10**9) }}",
    "{{ 'a'.center(10**9) }}",
    "{{ 'a'.ljust(10**9) }}",
    "{{ 'a'.zfill(10**9) }}",
    "{{ '\t'.expandtabs(10**9) }}",
    "{{ ('a' * 9999).replace('a', 'b' * 9999) }}",
    "{{ ('a' * 9999).replace('', 'b' * 9999) }}",
    "{{ ('a' * 9999) | replace('a', 'b' * 9999) }}",
    "{{ ('b' * 9999).join('a' * 9999) }}",
    "{{ ('a' * 9999) | list | join('b' * 9999) }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '%*d' % (10**9, 1) }}",
    "{{ '%.1000000000f' % 1 }}",
    "{{ '%.1000000000d' % 1 }}",
    "{{ '{:1000000000}'.format(1) }}",
    "{{ '{:.1000000000f}'.format(1.5) }}",
    "{{ ('{0}' * 9999).format('x' * 9999) }}",
    "{{ ('%(a)s' * 9999) % {'a': 'x' * 9999} }}",
    "{{ 2 ** (10**9) }}",
    "{{ 10 ** (10 ** 10) }}",
    "{% set ns = namespace(n=3) %}{% for a in range(99) %}{% set ns.n = ns.n * ns.n %}{% endfor %}",
    "{{ [1] | tojson(indent=10**9) }}",
    "{{ [[[[1]]]] | tojson(indent=' ' * 9999999) }}",
    "{{ range(100000) | batch(1, 'x') | list | string | wordwrap(1) | list | map('list') | list | length }}{{ 'x' * 10**8 }}",
    "{{ [1] | batch(10**9, 0) | list }}",
    "{{ [1] | slice(10**9) | list }}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}",
    "{% macro m(f) %}{% set c = caller is defined %}{% call f(f) %}{% endcall %}{% endmacro %}{{ m(m) }}",
    "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "{% for x in range(99999) %}{{ 'x' * 99999 }}{% endfor %}",
    "{% for x in range(99999) %}{% set y = ('x' * 999999).upper() %}{% endfor %}",
    "{% set s = 'x' * 9999999 %}{% for x in range(99999) %}{{ 'y' in s }}{% endfor %}",
    "{% set s = 'x' * 9999999 %}{% for x in range(99999) %}{{ s | length }}{% endfor %}",
    "{% set s = 'x' * 9999999 %}{% for x in range(99999) %}{{ s == s ~ 'y' }}{% endfor %}",
    "{% set s = 'x' * 9999999 %}{% for x in range(99999) %}{{ s.isalpha() }}{% endfor %}",
    "{% set l = range(99999) | list %}{% for x in l %}{{ x in l }}{% endfor %}",
    "{% set l = range(99999) | list %}{% for x in l %}{{ l[1:] | length }}{% endfor %}",
    "{% for x in range(99999) %}{% for y in range(99999) | sort %}{% endfor %}{% endfor %}",
    "{{ strftime_now('%c' * 99999) }}",
];

#[test]
fn hostile_templates_are_refused_by_a_bound() {
    let nested = format!("{{{{ {}1{} }}}}", "(".repeat(5000), ")".repeat(5000));
    let lists = format!("{{{{ {}{} }}}}", "[".repeat(100_000), "]".repeat(100_000));
    let signs = format!("{{{{ {}1 }}}}", "-".repeat(100_000));
    let ifs = "{% if true %}".repeat(10_000);
    let nots = format!("{{{{ {} x }}}}", "not ".repeat(50_000));
    let made = [&nested, &lists, &signs, &ifs, &nots].map(String::as_str);
    let mut wrong = Vec::new();
    for source in HOSTILE.iter().copied().chain(made) {
        let start = Instant::now();
        let folder = super::folder(source);
        let messages = [json!({ "role": "user", "content": "x" })];
        let found = ChatTemplate::find(folder.path(), &json!({}));
        let error = match found {
            Err(error) => error.to_string(),
            Ok(found) => {
                let conversation = crate::template::Conversation { messages: &messages, ..Default::default() };
                found.unwrap().render(&conversation, Default::default()).unwrap_err().to_string()
            }
        };
        let shown: String = source.chars().take(80).collect();
        let named = error.contains("it passes the bound of") && error.contains(&*folder.path().to_string_lossy());
        if !named || start.elapsed() > QUICKLY {
            wrong.push(format!("{shown}: {error} after {:?}", start.elapsed()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_source_beyond_its_bound_is_refused() {
    let folder = super::folder(&"x".repeat((1 << 20) + 1));
    let error = ChatTemplate::find(folder.path(), &json!({})).unwrap_err().to_string();
    assert!(error.contains("larger than 1048576 bytes"), "{error}");
}

#[test]
fn long_chains_and_conversations_pass() {
    let sum = format!("{{{{ {}1 }}}}", "1 + ".repeat(5000));
    let text = format!("{{{{ {}'' }}}}", "'a' ~ ".repeat(5000));
    let choice = format!("{{% if false %}}{}{{% endif %}}", "{% elif false %}".repeat(3000));
    let message = json!({ "role": "user", "content": "word ".repeat(1000) });
    let messages = json!(vec![message; 1000]);
    let loops =
        "{% for m in messages %}{% if m.role == 'user' %}{{ '[' + m.content | trim + ']\\n' }}{% endif %}{% endfor %}";
    for source in [&sum, &text, &choice, loops] {
        super::render(&template(source), &messages).unwrap();
    }
}

#[test]
fn cycles_and_chains_of_namespaces_end() {
    let source = "{% set ns = namespace() %}{% for a in range(99999) %}{% set ns.n = namespace(b=ns.n) %}{% endfor %}x";
    assert_eq!(super::render(&template(source), &json!([{ "role": "user" }])).unwrap().text, "x");
    assert!(failure("{{ [1] | map('map') | list }}", &json!([{ "role": "user" }])).contains("line 1"));
}
