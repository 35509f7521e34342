//! Conversations whose final message goes on, as `continue_final_message` of `transformers`.

use serde_json::Value;

use super::jinja::{rstrip, strip};

/// Marks the end of the final message while the template renders.
const TAG: &str = "CONTINUE_FINAL_MESSAGE_TAG ";

type Reason = &'static str;

/// Puts the tag behind the final message's content; returns the content as the template had it.
pub(super) fn tag(messages: &mut [Value], source: &str) -> Result<String, Reason> {
    let last = messages.last_mut().ok_or("there is no final message to continue")?;
    if !source.contains("content") {
        return Err("the template reads no content that could be continued");
    }
    let text = match &mut last["content"] {
        Value::String(text) => text,
        Value::Array(parts) => {
            let part = parts.iter_mut().rev().find(|part| part.get("text").is_some());
            match part.map(|part| &mut part["text"]) {
                Some(Value::String(text)) => text,
                _ => return Err("the final message has no text to continue among its parts"),
            }
        }
        _ => return Err("the final message has no content to continue"),
    };
    let content = text.clone();
    text.push_str(TAG);
    Ok(content)
}

/// Cuts a rendering where the tag stands.
pub(super) fn cut<'t>(text: &'t str, content: &str) -> Result<&'t str, Reason> {
    let mark = rstrip(TAG);
    let at = text.rfind(mark).filter(|_| text.contains(strip(content)));
    let at = at.ok_or("the final message does not stand in the rendering as it is, so it cannot be continued")?;
    // Where the template strips the content, the tag's own space is gone, and so is that before the tag.
    Ok(if text[at..].starts_with(TAG) { &text[..at] } else { rstrip(&text[..at]) })
}
