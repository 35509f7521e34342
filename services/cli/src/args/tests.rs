//! What the documents tell readers to type is there.

use std::{collections::BTreeSet, fs, path::Path};

use clap::{CommandFactory, Parser};

use super::Args;

const ROOT: &str = "../..";
/// Folders whose Markdown files are read, and those of the top.
const FOLDERS: [&str; 6] = [".", "docs", "examples/stories", "examples/cycle", "clients/python", "crates/config/src"];

/// Returns every document: its name and its text.
fn documents() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for folder in FOLDERS {
        let entries = fs::read_dir(Path::new(ROOT).join(folder)).expect("a folder of documents");
        let paths = entries.map(|entry| entry.expect("an entry").path());
        for path in paths.filter(|path| path.extension().is_some_and(|end| end == "md")) {
            found.push((path.display().to_string(), fs::read_to_string(&path).expect("readable")));
        }
    }
    assert!(found.len() > 10, "{} documents", found.len());
    found
}

/// Returns the lines of the shell blocks without comments.
fn shell_lines(text: &str) -> Vec<String> {
    let blocks = text.split("```").skip(1).step_by(2).filter(|block| block.starts_with("sh\n"));
    let lines = blocks.flat_map(str::lines).skip(1);
    lines.map(|line| line.split(" #").next().unwrap_or_default().trim().to_owned()).collect()
}

/// Returns the code spans outside of blocks.
fn spans(text: &str) -> Vec<&str> {
    text.split("```")
        .step_by(2)
        .flat_map(|part| part.lines())
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .collect()
}

/// Splits a command into words as a shell does, with single and double quotes.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote, mut begun) = (Vec::new(), String::new(), None, false);
    for c in line.chars() {
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            ('\'' | '"', None) => (quote, begun) = (Some(c), true),
            (c, None) if c.is_whitespace() => {
                if begun {
                    words.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            (c, _) => {
                word.push(c);
                begun = true;
            }
        }
    }
    if begun {
        words.push(word);
    }
    words
}

#[test]
fn every_joust_command_of_the_documents_parses() {
    let mut checked = 0;
    for (name, text) in documents() {
        for line in shell_lines(&text).iter().filter(|line| line.starts_with("joust ")) {
            let parsed = Args::try_parse_from(words(line));
            assert!(parsed.is_ok(), "{name}: {line}: {}", parsed.expect_err("refused"));
            checked += 1;
        }
    }
    assert!(checked > 25, "{checked} commands");
}

#[test]
fn every_verb_and_target_that_the_documents_name_exists() {
    let makefile = fs::read_to_string(Path::new(ROOT).join("Makefile")).expect("a Makefile");
    let targets: BTreeSet<&str> = makefile
        .lines()
        .filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()) && line.contains(':'))
        .filter_map(|line| line.split(':').next())
        .collect();
    let command = Args::command();
    let mut checked = 0;
    for (name, text) in documents() {
        let lines = shell_lines(&text);
        for code in spans(&text).into_iter().chain(lines.iter().map(String::as_str)) {
            let mut parts = code.split_whitespace();
            match (parts.next(), parts.next()) {
                (Some("make"), Some(target)) => {
                    assert!(targets.contains(target), "{name}: `{code}` is no target of the Makefile");
                }
                (Some("joust"), Some(verb)) if verb.starts_with(|c: char| c.is_ascii_lowercase()) => {
                    let known = command.find_subcommand(verb).is_some();
                    assert!(known, "{name}: `{code}` names no verb of joust");
                }
                _ => continue,
            }
            checked += 1;
        }
    }
    assert!(checked > 50, "{checked} commands");
}

#[test]
fn every_path_that_the_documents_name_exists() {
    let tops = ["crates/", "services/", "scripts/", "docs/", "examples/", "proto/", "clients/", "tests/"];
    let mut checked = 0;
    for (name, text) in documents() {
        let whole =
            |code: &&str| tops.iter().any(|top| code.starts_with(top)) && !code.contains(['<', '*', '{', ' ', ':']);
        for path in spans(&text).into_iter().filter(whole) {
            let beside = Path::new(&name).with_file_name(path);
            assert!(Path::new(ROOT).join(path).exists() || beside.exists(), "{name}: {path} is not there");
            checked += 1;
        }
    }
    assert!(checked > 20, "{checked} paths");
}
