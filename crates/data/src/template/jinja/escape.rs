//! HTML: what counts as escaped, and what does not.

/// Escapes a text for HTML, as `markupsafe`.
pub(crate) fn escape(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => result.push_str("&amp;"),
            '<' => result.push_str("&lt;"),
            '>' => result.push_str("&gt;"),
            '\'' => result.push_str("&#39;"),
            '"' => result.push_str("&#34;"),
            _ => result.push(letter),
        }
    }
    result
}

/// Drops tags and comments, and joins white space, as `Markup.striptags`.
pub(crate) fn strip_tags(text: &str) -> String {
    let without_comments = without(text, "<!--", "-->");
    let without_tags = without(&without_comments, "<", ">");
    let words: Vec<&str> = super::search::split_words(&without_tags, usize::MAX, false);
    unescape(&words.join(" "))
}

fn without(text: &str, open: &str, close: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(open) {
        let Some(length) = rest[start + open.len()..].find(close) else { break };
        result.push_str(&rest[..start]);
        rest = &rest[start + open.len() + length + close.len()..];
    }
    result.push_str(rest);
    result
}

/// Replaces the entities that [`escape`] writes, and those by number.
pub(crate) fn unescape(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('&') {
        result.push_str(&rest[..start]);
        rest = &rest[start..];
        let end = rest.char_indices().take(34).find(|(_, letter)| *letter == ';').map(|(at, _)| at);
        match end.and_then(|end| entity(&rest[1..end]).map(|letter| (end, letter))) {
            Some((end, letter)) => {
                result.push(letter);
                rest = &rest[end + 1..];
            }
            None => {
                result.push('&');
                rest = &rest[1..];
            }
        }
    }
    result.push_str(rest);
    result
}

fn entity(name: &str) -> Option<char> {
    if let Some(number) = name.strip_prefix('#') {
        let hex = number.strip_prefix(['x', 'X']);
        let code = hex.map_or_else(|| number.parse().ok(), |hex| u32::from_str_radix(hex, 16).ok());
        return code.and_then(char::from_u32);
    }
    Some(match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        "nbsp" => '\u{a0}',
        _ => return None,
    })
}
