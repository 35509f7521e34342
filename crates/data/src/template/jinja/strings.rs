//! Methods of texts.

use super::{
    call::{Args, index, required},
    error::{Fault, Result},
    escape::{escape, strip_tags, unescape},
    search,
    state::State,
    unicode::{self, is_space},
    value::{Text, Value},
};

/// Methods whose results stay escaped where the text is.
const KEEPING: [&str; 19] = [
    "capitalize",
    "casefold",
    "center",
    "expandtabs",
    "ljust",
    "lower",
    "lstrip",
    "removeprefix",
    "removesuffix",
    "replace",
    "rjust",
    "rstrip",
    "strip",
    "swapcase",
    "title",
    "translate",
    "upper",
    "zfill",
    "join",
];

/// Methods that go through tables of cases.
const CASES: [&str; 5] = ["casefold", "translate", "swapcase", "title", "capitalize"];

impl State<'_> {
    /// Calls a method of a text.
    pub(crate) fn text_method(&mut self, text: &Text, name: &'static str, args: Args) -> Result<Value> {
        let args = if text.markup { self.escaped_args(name, args)? } else { args };
        self.meter.read(text.text.len())?;
        if name.starts_with("is") || CASES.contains(&name) {
            // These look every character up in a table.
            self.meter.step(text.text.len() as u64 / 8)?;
        }
        let markup = text.markup && KEEPING.contains(&name);
        let value = &*text.text;
        if let Some(changed) = cased(value, name) {
            let []: [Option<Value>; 0] = args.positional(name)?;
            self.meter.text(changed.len())?;
            return Ok(Value::marked(changed, markup));
        }
        if let Some(answer) = tests(value, name) {
            let []: [Option<Value>; 0] = args.positional(name)?;
            return Ok(Value::Bool(answer));
        }
        match name {
            "center" | "ljust" | "rjust" => self.justify(value, name, args).map(|text| Value::marked(text, markup)),
            "zfill" => self.zfill(value, args).map(|text| Value::marked(text, markup)),
            "strip" | "lstrip" | "rstrip" => strip_method(value, name, args).map(|text| Value::marked(text, markup)),
            "removeprefix" | "removesuffix" => {
                let [part] = args.positional(name)?;
                let part = text_argument(&required(part, name)?, name)?;
                let cut = if name == "removeprefix" { value.strip_prefix(&*part) } else { value.strip_suffix(&*part) };
                Ok(Value::marked(cut.unwrap_or(value), markup))
            }
            "replace" => {
                let [old, new, count] = args.positional(name)?;
                let (old, new) = (required(old, name)?, required(new, name)?);
                let count = count.as_ref().map_or(Ok(-1), |count| index(count, name))?;
                let (old, new) = (text_argument(&old, name)?, text_argument(&new, name)?);
                self.replace(value, (&old, &new), count).map(|text| Value::marked(text, markup))
            }
            "count" | "find" | "index" | "rfind" | "rindex" => search::find(value, name, args),
            "startswith" | "endswith" => search::affix(value, name, args),
            "split" | "rsplit" => self.split_method(text, name, args),
            "splitlines" => {
                let [keep] = args.places(name, ["keepends"])?;
                let keep = keep.is_some_and(|keep| keep.truth());
                let lines = unicode::split_lines(value, keep);
                self.text_list(&lines, text.markup)
            }
            "partition" | "rpartition" => self.partition(text, name, args),
            "join" => {
                let [items] = args.positional(name)?;
                let items = self.items(&required(items, name)?)?;
                self.join_all(text, &items)
            }
            "expandtabs" => {
                let [size] = args.places(name, ["tabsize"])?;
                let size = size.as_ref().map_or(Ok(8), |size| index(size, name))?;
                self.expand_tabs(value, size).map(|text| Value::marked(text, markup))
            }
            "translate" => {
                let [table] = args.positional(name)?;
                self.translate(value, &required(table, name)?).map(|text| Value::marked(text, markup))
            }
            "maketrans" => self.make_trans(args),
            "format" => self.format_method(text, args),
            "format_map" => {
                let [map] = args.positional(name)?;
                self.format_map(text, required(map, name)?)
            }
            "striptags" => Ok(Value::text(strip_tags(value))),
            "unescape" => Ok(Value::text(unescape(value))),
            "escape" => {
                let [part] = args.positional(name)?;
                let part = self.str(&required(part, name)?)?;
                Ok(Value::marked(escape(&part), true))
            }
            _ => Err(Fault::new(format!("the text method {name} is not supported"))),
        }
    }

    /// Escapes what is given to a method of an escaped text.
    fn escaped_args(&self, name: &str, mut args: Args) -> Result<Args> {
        let from = match name {
            "replace" | "ljust" | "rjust" | "center" => 1,
            _ => usize::MAX,
        };
        for value in args.list.iter_mut().skip(from).take(1) {
            if !matches!(value, Value::Text(text) if text.markup) {
                *value = Value::marked(escape(&self.str(value)?), true);
            }
        }
        Ok(args)
    }

    /// Replaces a part of a text, at most `count` times where that is not negative.
    pub(crate) fn replace(&mut self, text: &str, parts: (&str, &str), count: i64) -> Result<String> {
        let (old, new) = parts;
        let limit = usize::try_from(count).unwrap_or(usize::MAX);
        let found = if old.is_empty() { text.chars().count() + 1 } else { text.matches(old).count() };
        let found = found.min(limit);
        self.meter.text(text.len().saturating_add(found.saturating_mul(new.len())))?;
        Ok(text.replacen(old, new, found))
    }

    fn justify(&mut self, text: &str, name: &str, args: Args) -> Result<String> {
        let [width, fill] = args.positional(name)?;
        let width = index(&required(width, name)?, name)?;
        let fill = match &fill {
            Some(fill) => text_argument(fill, name)?.to_string(),
            None => " ".into(),
        };
        if fill.chars().count() != 1 {
            return Err(Fault::new(format!("{name} needs one character to fill with")));
        }
        self.pad(text, width, name, &fill)
    }

    /// Fills a text up to a width.
    pub(crate) fn pad(&mut self, text: &str, width: i64, name: &str, fill: &str) -> Result<String> {
        let width = usize::try_from(width).unwrap_or(0);
        let missing = width.saturating_sub(text.chars().count());
        self.meter.text(missing.saturating_mul(fill.len()).saturating_add(text.len()))?;
        let left = match name {
            "rjust" => missing,
            "center" => missing / 2 + (missing & width & 1),
            _ => 0,
        };
        Ok(format!("{}{text}{}", fill.repeat(left), fill.repeat(missing - left)))
    }

    fn zfill(&mut self, text: &str, args: Args) -> Result<String> {
        let [width] = args.positional("zfill")?;
        let width = index(&required(width, "zfill")?, "zfill")?;
        let (sign, digits) = match text.chars().next() {
            Some('+' | '-') => text.split_at(1),
            _ => ("", text),
        };
        let padded = self.pad(digits, width - i64::try_from(sign.len()).unwrap_or(0), "rjust", "0")?;
        Ok(format!("{sign}{padded}"))
    }

    fn split_method(&mut self, text: &Text, name: &'static str, args: Args) -> Result<Value> {
        let [separator, limit] = args.places(name, ["sep", "maxsplit"])?;
        let limit = limit.as_ref().map_or(Ok(-1), |limit| index(limit, name))?;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let from_right = name == "rsplit";
        let parts: Vec<&str> = match separator.filter(|separator| !matches!(separator, Value::None)) {
            None => search::split_words(&text.text, limit, from_right),
            Some(separator) => {
                let separator = text_argument(&separator, name)?;
                if separator.is_empty() {
                    return Err(Fault::new(format!("{name} got an empty separator")));
                }
                let limit = limit.saturating_add(1);
                if from_right {
                    let mut parts: Vec<&str> = text.text.rsplitn(limit, &*separator).collect();
                    parts.reverse();
                    parts
                } else {
                    text.text.splitn(limit, &*separator).collect()
                }
            }
        };
        self.text_list(&parts, text.markup)
    }

    /// Makes a list of texts.
    pub(crate) fn text_list(&mut self, parts: &[&str], markup: bool) -> Result<Value> {
        self.meter.places(parts.len())?;
        Value::list(parts.iter().map(|part| Value::marked(*part, markup)).collect(), &self.meter)
    }

    fn partition(&mut self, text: &Text, name: &'static str, args: Args) -> Result<Value> {
        let [separator] = args.positional(name)?;
        let separator = text_argument(&required(separator, name)?, name)?;
        if separator.is_empty() {
            return Err(Fault::new(format!("{name} got an empty separator")));
        }
        let (value, right) = (&*text.text, name == "rpartition");
        let found = if right { value.rsplit_once(&*separator) } else { value.split_once(&*separator) };
        let parts = match found {
            Some((before, after)) => [before, &separator, after],
            None if right => ["", "", value],
            None => [value, "", ""],
        };
        Value::tuple(parts.iter().map(|part| Value::marked(*part, text.markup)).collect(), &self.meter)
    }

    fn join_all(&mut self, separator: &Text, items: &[Value]) -> Result<Value> {
        let mut joined = String::new();
        for (at, item) in items.iter().enumerate() {
            let item = match item {
                Value::Text(item) => item.clone(),
                other if separator.markup => Text { text: self.str(other)?, markup: false },
                other => return Err(Fault::new(format!("join needs texts, got a {}", other.kind()))),
            };
            if at > 0 {
                joined.push_str(&separator.text);
            }
            let escapes = separator.markup && !item.markup;
            if escapes {
                joined.push_str(&escape(&item.text))
            } else {
                joined.push_str(&item.text)
            }
            self.meter.text(joined.len())?;
        }
        Ok(Value::marked(joined, separator.markup))
    }
}

/// Returns an argument that must be a text.
pub(crate) fn text_argument(value: &Value, callee: &str) -> Result<std::sync::Arc<str>> {
    match value {
        Value::Text(text) => Ok(text.text.clone()),
        Value::Undefined(what) => Err(Fault::new(what.to_string())),
        _ => Err(Fault::new(format!("{callee} needs a text, got a {}", value.kind()))),
    }
}

fn cased(text: &str, name: &str) -> Option<String> {
    Some(match name {
        "capitalize" => unicode::capitalize(text),
        "casefold" => unicode::fold(text),
        "lower" => text.to_lowercase(),
        "upper" => text.to_uppercase(),
        "swapcase" => unicode::swap(text),
        "title" => unicode::title(text),
        _ => return None,
    })
}

/// Answers what is asked of all characters of a text.
pub(crate) fn tests(text: &str, name: &str) -> Option<bool> {
    let all = |test: fn(char) -> bool| !text.is_empty() && text.chars().all(test);
    Some(match name {
        "isalnum" => all(|letter| unicode::is_alpha(letter) || unicode::is_numeric(letter)),
        "isalpha" => all(unicode::is_alpha),
        "isascii" => text.is_ascii(),
        "isdecimal" => all(unicode::is_decimal),
        "isdigit" => all(unicode::is_digit),
        "isidentifier" => is_identifier(text),
        "islower" => text.chars().any(char::is_lowercase) && !text.chars().any(is_upper),
        "isnumeric" => all(unicode::is_numeric),
        "isprintable" => text.chars().all(unicode::is_printable),
        "isspace" => all(is_space),
        "istitle" => is_title(text),
        "isupper" => text.chars().any(char::is_uppercase) && !text.chars().any(is_lower),
        _ => return None,
    })
}

fn is_upper(letter: char) -> bool {
    letter.is_uppercase() || unicode::is_title(letter)
}

fn is_lower(letter: char) -> bool {
    letter.is_lowercase() || unicode::is_title(letter)
}

fn is_identifier(text: &str) -> bool {
    let starts = text.chars().next().is_some_and(|first| first == '_' || unicode::is_alpha(first));
    starts
        && text
            .chars()
            .all(|letter| unicode::is_word(letter) && (unicode::is_decimal(letter) || !unicode::is_digit(letter)))
}

fn is_title(text: &str) -> bool {
    let (mut inside, mut found) = (false, false);
    for letter in text.chars() {
        let starts = is_upper(letter);
        if starts && inside || letter.is_lowercase() && !inside {
            return false;
        }
        inside = unicode::is_cased(letter);
        found |= inside;
    }
    found
}

fn strip_method(text: &str, name: &str, args: Args) -> Result<String> {
    let [letters] = args.positional(name)?;
    let letters = match letters {
        None | Some(Value::None) => None,
        Some(letters) => Some(text_argument(&letters, name)?),
    };
    Ok(strip(text, name, letters.as_deref()).to_owned())
}

/// Strips characters, or white space.
pub(crate) fn strip<'t>(text: &'t str, name: &str, letters: Option<&str>) -> &'t str {
    let strips = |letter: char| letters.map_or_else(|| is_space(letter), |letters| letters.contains(letter));
    let text = if name == "rstrip" { text } else { text.trim_start_matches(strips) };
    if name == "lstrip" { text } else { text.trim_end_matches(strips) }
}
