//! OpenAssistant: trees of messages, or the messages of trees, whose answers people ranked.

use std::collections::BTreeMap;

use joust_core::{Message, kind_of};
use serde_json::{Map, Value};

use super::{Scored, contrast};
use crate::{
    Preference, Result,
    rows::{Problem, Reading, Row},
};

type Parsed<T> = std::result::Result<T, Problem>;

/// Deepest tree that is read; those of the data set have about ten turns.
const MAX_DEPTH: usize = 64;

/// One message of a tree.
struct Node {
    id: String,
    parent: Option<String>,
    message: Message,
    rank: Option<f64>,
    deleted: bool,
}

fn node(fields: &Map<String, Value>) -> Parsed<Node> {
    let text = |name: &str| fields.get(name).and_then(Value::as_str).map(str::to_owned);
    let missing = |name: &str| format!("a message has no text {name}");
    let role = match text("role").as_deref() {
        Some("prompter") => "user",
        Some("assistant") => "assistant",
        _ => return Err("column role is prompter or assistant, found another".into()),
    };
    Ok(Node {
        id: text("message_id").ok_or_else(|| missing("message_id"))?,
        parent: text("parent_id"),
        message: Message::new(role, text("text").ok_or_else(|| missing("text"))?),
        rank: fields.get("rank").and_then(Value::as_f64),
        deleted: fields.get("deleted").and_then(Value::as_bool).unwrap_or_default(),
    })
}

/// Lists the messages of a tree, each behind the one that it answers.
fn flatten(value: &Value, depth: usize, into: &mut Vec<Node>) -> Parsed<()> {
    let fields = value.as_object().ok_or_else(|| format!("a message is {}, expected an object", kind_of(value)))?;
    if depth > MAX_DEPTH {
        return Err(format!("the tree is deeper than {MAX_DEPTH} messages"));
    }
    into.push(node(fields)?);
    let replies = fields.get("replies").and_then(Value::as_array);
    replies.into_iter().flatten().try_for_each(|reply| flatten(reply, depth + 1, into))
}

fn nodes(row: &Row) -> Parsed<Vec<Node>> {
    let mut nodes = Vec::new();
    if let Some(tree) = row.get("prompt") {
        flatten(tree, 1, &mut nodes)?;
        return Ok(nodes);
    }
    let names = ["message_id", "parent_id", "text", "role", "rank", "deleted"];
    row.text("message_id")?;
    let field = |name: &str| row.get(name).map(|value| (name.to_owned(), value.clone()));
    nodes.push(node(&names.into_iter().filter_map(field).collect())?);
    Ok(nodes)
}

/// Returns what was said before and with a message, from the first on; `None` where a part of it is
/// not there.
fn path(nodes: &BTreeMap<String, Node>, id: &str) -> Option<Vec<Message>> {
    let (mut messages, mut next) = (Vec::new(), Some(id));
    while let Some(id) = next {
        let node = nodes.get(id).filter(|_| messages.len() < MAX_DEPTH)?;
        messages.insert(0, node.message.clone());
        next = node.parent.as_deref();
    }
    Some(messages)
}

/// Reads one preference for each message that has answers of different ranks; rank 0 is the best.
pub(super) fn preferences(reading: &mut Reading<'_>) -> Result<Vec<Preference>> {
    let columns = ["prompt", "message_id", "parent_id", "text", "role", "rank", "deleted"];
    let rows = reading.parse(&columns, nodes)?;
    let mut order = Vec::new();
    let mut answers: BTreeMap<String, Vec<Scored>> = BTreeMap::new();
    let mut all = BTreeMap::new();
    for node in rows.into_iter().flat_map(|(_, nodes)| nodes) {
        if let (Some(parent), Some(rank), false, "assistant") =
            (&node.parent, node.rank, node.deleted, node.message.role())
        {
            let own = answers.entry(parent.clone()).or_default();
            own.push(Scored { text: node.message.text().into_owned(), score: -rank });
        }
        order.push(node.id.clone());
        all.insert(node.id.clone(), node);
    }
    let mut pairs = Vec::new();
    for id in order {
        let Some(own) = answers.get(&id) else { continue };
        match path(&all, &id).and_then(|messages| contrast(messages, own)) {
            Some(pair) => pairs.push(pair),
            None => reading.leave_out("no two answers of different ranks, or a message before them is missing"),
        }
    }
    Ok(pairs)
}
