//! `docs/configuration.md`, made from the schemas, so that no key is there without its meaning.

use serde_json::Value;

use crate::{
    ConfigFile, Deployment, RewardFile, RunFile, SftFile,
    schema::{branches, const_of, describe, names, non_null_branch, properties, schema_of, tag_of, type_of},
    tree::join,
};

/// Writes the reference of every key of every file as Markdown: type, default and meaning.
pub fn reference_markdown() -> String {
    let mut page = include_str!("reference_head.md").to_owned();
    file::<RunFile>(&mut page, "Run file");
    file::<SftFile>(&mut page, "SFT file");
    file::<RewardFile>(&mut page, "Reward file");
    file::<Deployment>(&mut page, "Deployment file");
    page
}

fn file<F: ConfigFile>(page: &mut String, title: &str) {
    let schema = schema_of::<F>();
    page.push_str(&format!("\n## {title}\n\n{}\n", meaning(&schema)));
    let (sections, plain): (Vec<_>, Vec<_>) = properties(&schema).partition(|(_, inner)| is_section(inner));
    if !plain.is_empty() {
        let mut table = Table::default();
        for (name, inner) in plain {
            table.key(name, inner, needed(&schema, name));
        }
        table.write(page);
    }
    for (name, inner) in sections {
        section(page, name, inner, needed(&schema, name));
    }
}

fn section(page: &mut String, name: &str, schema: &Value, needed: bool) {
    let inner = contents(schema);
    let bracket = if type_of(schema) == "array" { format!("[[{name}]]") } else { format!("[{name}]") };
    let needed = if needed { " Required." } else { "" };
    page.push_str(&format!("\n### `{bracket}`\n\n{}{needed}\n", meaning(schema)));
    let all = branches(inner);
    let Some(tag) = tag_of(&all) else {
        let mut table = Table::default();
        table.object(name, inner);
        return table.write(page);
    };
    for branch in &all {
        let kind = const_of(branch, tag).unwrap_or_default();
        page.push_str(&format!("\n#### `{tag} = \"{kind}\"`\n\n{}\n", meaning(branch)));
        let mut table = Table::default();
        table.object(name, branch);
        table.write(page);
    }
}

/// Rows of one table, and the closed choices that are explained below it.
#[derive(Default)]
struct Table {
    rows: String,
    choices: String,
}

impl Table {
    fn object(&mut self, path: &str, schema: &Value) {
        for (name, inner) in properties(schema).filter(|(_, inner)| inner.get("const").is_none()) {
            self.key(&join(path, name), inner, needed(schema, name));
        }
    }

    /// Writes one key; a table writes its own keys, and so does a list of tables.
    fn key(&mut self, key: &str, schema: &Value, needed: bool) {
        let inner = contents(schema);
        let alternatives = branches(inner);
        let is_nest = properties(inner).next().is_some();
        let is_choice =
            names(inner).is_empty() && alternatives.iter().any(|branch| properties(branch).next().is_some());
        self.row(key, schema, needed);
        if is_nest {
            self.object(key, inner);
        } else if is_choice {
            for branch in alternatives {
                // The key that says which alternative it is comes first among the required ones.
                let which = branch.get("required").and_then(|list| list.get(0)?.as_str()).unwrap_or_default();
                self.object(&format!("{key}[{which}]"), branch);
            }
        }
        self.choice(key, inner);
    }

    fn row(&mut self, key: &str, schema: &Value, needed: bool) {
        let inner = contents(schema);
        let domain = if names(inner).len() > 3 && type_of(schema) != "array" {
            "a name below".to_owned()
        } else {
            describe(schema)
        };
        let default = match schema.get("default") {
            _ if needed => "required".to_owned(),
            None | Some(Value::Null) => "—".to_owned(),
            Some(Value::String(text)) if text.is_empty() => "see meaning".to_owned(),
            Some(Value::Object(_)) => "—".to_owned(),
            Some(value) => format!("`{value}`"),
        };
        let cells = [format!("`{key}`"), domain, default, meaning(schema)].map(|cell| cell.replace('|', "\\|"));
        self.rows.push_str(&format!("| {} |\n", cells.join(" | ")));
    }

    /// Explains the names of a closed choice.
    fn choice(&mut self, key: &str, schema: &Value) {
        let known = names(schema);
        if known.is_empty() {
            return;
        }
        self.choices.push_str(&format!("\n`{key}`:\n\n"));
        let choice = non_null_branch(schema).unwrap_or(schema);
        for branch in branches(choice) {
            let (name, about) = (names(branch).join(", "), meaning(branch));
            self.choices.push_str(&format!("- `{name}`: {about}\n"));
        }
    }

    fn write(self, page: &mut String) {
        page.push_str(&format!(
            "\n| key | value | default | meaning |\n|---|---|---|---|\n{}{}",
            self.rows, self.choices
        ));
    }
}

/// Returns what a schema is about once `null` and the list around it are taken off.
fn contents(schema: &Value) -> &Value {
    let schema = non_null_branch(schema).unwrap_or(schema);
    if type_of(schema) == "array" { schema.get("items").unwrap_or(schema) } else { schema }
}

fn is_section(schema: &Value) -> bool {
    let inner = contents(schema);
    properties(inner).next().is_some() || tag_of(&branches(inner)).is_some()
}

fn needed(schema: &Value, name: &str) -> bool {
    schema.get("required").and_then(Value::as_array).is_some_and(|list| list.iter().any(|key| key == name))
}

fn meaning(schema: &Value) -> String {
    schema.get("description").and_then(Value::as_str).unwrap_or_default().replace('\n', " ")
}
