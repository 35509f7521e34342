//! Filters: which there are, and those on texts.

use super::{
    call::{Args, index, required},
    error::{Fault, Result},
    escape::{escape, strip_tags},
    json,
    state::State,
    strings::{strip, text_argument},
    unicode,
    value::Value,
};

/// Names of all filters.
pub(crate) const FILTERS: [&str; 54] = [
    "abs",
    "attr",
    "batch",
    "capitalize",
    "center",
    "count",
    "d",
    "default",
    "dictsort",
    "e",
    "escape",
    "filesizeformat",
    "first",
    "float",
    "forceescape",
    "format",
    "groupby",
    "indent",
    "int",
    "join",
    "last",
    "length",
    "list",
    "lower",
    "items",
    "map",
    "min",
    "max",
    "pprint",
    "random",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "safe",
    "select",
    "selectattr",
    "slice",
    "sort",
    "string",
    "striptags",
    "sum",
    "title",
    "trim",
    "truncate",
    "unique",
    "upper",
    "urlencode",
    "urlize",
    "wordcount",
    "wordwrap",
    "xmlattr",
    "tojson",
];

impl State<'_> {
    /// Applies a filter.
    pub(crate) fn filter(&mut self, name: &str, value: Value, args: Args) -> Result<Value> {
        self.enter()?;
        self.meter.step(1 + value.size().nodes() / 16)?;
        let result = match name {
            "capitalize" | "center" | "e" | "escape" | "forceescape" | "format" | "indent" | "lower" | "replace"
            | "safe" | "string" | "striptags" | "title" | "trim" | "truncate" | "upper" | "urlencode" | "wordcount"
            | "wordwrap" | "xmlattr" | "tojson" | "pprint" => self.text_filter(name, value, args),
            "abs" | "filesizeformat" | "float" | "int" | "round" => self.number_filter(name, value, args),
            "attr" | "count" | "length" | "d" | "default" | "first" | "last" | "list" | "items" | "reverse"
            | "join" | "random" | "batch" | "slice" => self.sequence_filter(name, value, args),
            "dictsort" | "groupby" | "min" | "max" | "sort" | "sum" | "unique" | "map" | "reject" | "rejectattr"
            | "select" | "selectattr" => self.keyed_filter(name, value, args),
            "urlize" => Err(Fault::new("the filter 'urlize' is not supported: a conversation is no web page")),
            // The name may come from the conversation.
            _ => Err(Fault::new("unknown filter")),
        }?;
        self.leave();
        Ok(result)
    }

    fn text_filter(&mut self, name: &str, value: Value, args: Args) -> Result<Value> {
        let markup = matches!(&value, Value::Text(text) if text.markup);
        match name {
            "tojson" => Ok(Value::text(json::to_json(&value, args, &self.meter)?)),
            "format" => self.format_filter(value, args),
            "indent" => self.indent(&value, args),
            "truncate" => self.truncate(&value, args),
            "wordwrap" => super::wrap::word_wrap(self, &value, args),
            "xmlattr" => self.xml_attributes(&value, args),
            "pprint" => self.pretty(&value, args),
            "replace" => {
                let [old, new, count] = args.places(name, ["old", "new", "count"])?;
                let (old, new) = (required(old, name)?, required(new, name)?);
                let (old, new, text) = (self.str(&old)?, self.str(&new)?, self.str(&value)?);
                let count = match count {
                    None | Some(Value::None) => -1,
                    Some(count) => index(&count, name)?,
                };
                Ok(Value::text(self.replace(&text, (&old, &new), count)?))
            }
            "center" => {
                let [width] = args.places(name, ["width"])?;
                let width = width.as_ref().map_or(Ok(80), |width| index(width, name))?;
                let text = self.str(&value)?;
                Ok(Value::marked(self.pad(&text, width, name, " ")?, markup))
            }
            "trim" => {
                let [letters] = args.places(name, ["chars"])?;
                let letters = match letters {
                    None | Some(Value::None) => None,
                    Some(letters) => Some(text_argument(&letters, name)?),
                };
                let text = self.str(&value)?;
                Ok(Value::marked(strip(&text, "strip", letters.as_deref()), markup))
            }
            _ => {
                let []: [Option<Value>; 0] = args.positional(name)?;
                self.plain_text_filter(name, value)
            }
        }
    }

    fn plain_text_filter(&mut self, name: &str, value: Value) -> Result<Value> {
        let markup = matches!(&value, Value::Text(text) if text.markup);
        if name == "urlencode" {
            return self.url_encode(&value);
        }
        let text = self.str(&value)?;
        self.meter.text(text.len())?;
        self.meter.step(text.len() as u64 / 8)?;
        Ok(match name {
            "e" | "escape" if markup => value,
            "e" | "escape" | "forceescape" => Value::marked(escape(&text), true),
            "safe" => Value::marked(text, true),
            "string" => Value::marked(text, markup),
            "striptags" => Value::text(strip_tags(&text)),
            "wordcount" => {
                let words = text.split(|letter| !unicode::is_word(letter)).filter(|word| !word.is_empty()).count();
                Value::Int(i64::try_from(words).unwrap_or(i64::MAX))
            }
            "capitalize" => Value::marked(unicode::capitalize(&text), markup),
            "lower" => Value::marked(text.to_lowercase(), markup),
            "upper" => Value::marked(text.to_uppercase(), markup),
            _ => Value::text(title(&text)),
        })
    }

    fn format_filter(&mut self, value: Value, args: Args) -> Result<Value> {
        if !args.list.is_empty() && !args.named.is_empty() {
            return Err(Fault::new("format takes arguments by place or by name, not both"));
        }
        let text = match value {
            Value::Text(text) => text,
            other => super::value::Text { text: self.str(&other)?, markup: false },
        };
        let values =
            if args.named.is_empty() { Value::tuple(args.list, &self.meter)? } else { self.named_dict(args.named)? };
        self.percent(&text, &values)
    }

    fn indent(&mut self, value: &Value, args: Args) -> Result<Value> {
        let [width, first, blank] = args.places("indent", ["width", "first", "blank"])?;
        let indent = match width {
            Some(Value::Text(text)) => text.text.to_string(),
            width => {
                let width = width.as_ref().map_or(Ok(4), |width| index(width, "indent"))?;
                let width = usize::try_from(width).unwrap_or(0);
                self.meter.text(width)?;
                " ".repeat(width)
            }
        };
        let Value::Text(text) = value else {
            return Err(Fault::new(format!("indent needs a text, got a {}", value.kind())));
        };
        let truth = |value: Option<Value>| value.is_some_and(|value| value.truth());
        let (first, blank) = (truth(first), truth(blank));
        let whole = format!("{}\n", text.text);
        let lines = unicode::split_lines(&whole, false);
        self.meter.text(whole.len().saturating_add(lines.len().saturating_mul(indent.len())))?;
        let mut result = String::new();
        for (at, line) in lines.iter().enumerate() {
            if at > 0 {
                result.push('\n');
            }
            let indents = if at == 0 { first } else { blank || !line.is_empty() };
            if indents {
                result.push_str(&indent);
            }
            result.push_str(line);
        }
        Ok(Value::marked(result, text.markup))
    }

    fn truncate(&mut self, value: &Value, args: Args) -> Result<Value> {
        let [length, kill, end, leeway] = args.places("truncate", ["length", "killwords", "end", "leeway"])?;
        let length = length.as_ref().map_or(Ok(255), |length| index(length, "truncate"))?;
        let end = end.map_or(Ok("...".into()), |end| text_argument(&end, "truncate"))?;
        let leeway = match leeway {
            None | Some(Value::None) => 5,
            Some(leeway) => index(&leeway, "truncate")?,
        };
        let count = i64::try_from(self.length(value)?).unwrap_or(i64::MAX);
        let kept = length - i64::try_from(end.chars().count()).unwrap_or(0);
        if kept < 0 || leeway < 0 {
            return Err(Fault::new("truncate got a length shorter than its end, or a negative leeway"));
        }
        if count <= length.saturating_add(leeway) {
            return Ok(value.clone());
        }
        let text = text_argument(value, "truncate")?;
        let cut: String = text.chars().take(usize::try_from(kept).unwrap_or(0)).collect();
        let cut = match kill.is_some_and(|kill| kill.truth()) {
            true => cut.as_str(),
            false => cut.rsplit_once(' ').map_or(cut.as_str(), |(before, _)| before),
        };
        Ok(Value::text(format!("{cut}{end}")))
    }

    fn xml_attributes(&mut self, value: &Value, args: Args) -> Result<Value> {
        let [space] = args.places("xmlattr", ["autospace"])?;
        let Value::Dict(dict) = value else {
            return Err(Fault::new(format!("xmlattr needs a dict, got a {}", value.kind())));
        };
        let mut parts = Vec::new();
        for (key, value) in &dict.map {
            if matches!(value, Value::None | Value::Undefined(_)) {
                continue;
            }
            let name = text_argument(&key.0, "xmlattr")?;
            if name.contains(|letter: char| "/>=".contains(letter) || letter.is_ascii_whitespace() || letter == '\u{b}')
            {
                return Err(Fault::new("xmlattr got a key that is no name of an attribute"));
            }
            let text = self.str(value)?;
            let markup = matches!(value, Value::Text(text) if text.markup);
            let text = if markup { text.to_string() } else { escape(&text) };
            parts.push(format!("{}=\"{text}\"", escape(&name)));
        }
        let joined = parts.join(" ");
        self.meter.text(joined.len())?;
        let leads = !joined.is_empty() && space.is_none_or(|space| space.truth());
        Ok(Value::marked(if leads { format!(" {joined}") } else { joined }, self.autoescape))
    }

    /// Prints a value as `pprint`, as long as it fits into one line.
    fn pretty(&mut self, value: &Value, args: Args) -> Result<Value> {
        let []: [Option<Value>; 0] = args.positional("pprint")?;
        let value = self.sorted(value)?;
        let text = self.repr(&value)?;
        if text.chars().count() > 80 && value.size().nodes() > 1 {
            return Err(Fault::new("the filter 'pprint' is supported for values of up to 80 characters"));
        }
        Ok(Value::text(text))
    }

    /// Sorts the keys of dicts in a value.
    fn sorted(&mut self, value: &Value) -> Result<Value> {
        self.enter()?;
        let result = match value {
            Value::Dict(dict) => {
                let entries: Vec<_> = dict.map.iter().map(|(key, value)| (key.0.clone(), value.clone())).collect();
                let keys = entries.iter().map(|(key, _)| (key.clone(), key.clone())).collect();
                let keys = super::compare::sort_by_keys(keys, false, &self.meter)?;
                let mut map = indexmap::IndexMap::new();
                for key in keys {
                    let key = super::compare::Key(key);
                    let value = dict.map.get(&key).cloned().unwrap_or(Value::None);
                    let value = self.sorted(&value)?;
                    map.insert(key, value);
                }
                Value::dict(map, &self.meter)?
            }
            Value::List(items) => {
                let items = items.list.iter().map(|item| self.sorted(item)).collect::<Result<_>>()?;
                Value::list(items, &self.meter)?
            }
            other => other.clone(),
        };
        self.leave();
        Ok(result)
    }

    fn url_encode(&mut self, value: &Value) -> Result<Value> {
        let pairs = match value {
            Value::Dict(dict) => dict.side(super::value::Side::Items, &self.meter)?,
            Value::List(_) | Value::Tuple(_) | Value::View(..) | Value::Once(_) | Value::Range(_) => {
                self.items(value)?
            }
            Value::Undefined(_) => Vec::new(),
            _ => return Ok(Value::text(quote(&self.str(value)?, "/", false))),
        };
        let mut parts = Vec::new();
        for pair in pairs {
            let pair: [Value; 2] = self.items(&pair)?.try_into().map_err(|_| Fault::new("urlencode needs pairs"))?;
            let [key, value] = [self.str(&pair[0])?, self.str(&pair[1])?];
            parts.push(format!("{}={}", quote(&key, "", true), quote(&value, "", true)));
        }
        let joined = parts.join("&");
        self.meter.text(joined.len())?;
        Ok(Value::text(joined))
    }
}

fn quote(text: &str, safe: &str, query: bool) -> String {
    let mut result = String::with_capacity(text.len());
    for byte in text.bytes() {
        let letter = char::from(byte);
        match letter {
            ' ' if query => result.push('+'),
            _ if letter.is_ascii_alphanumeric() || "_.-~".contains(letter) || safe.contains(letter) => {
                result.push(letter);
            }
            _ => result.push_str(&format!("%{byte:02X}")),
        }
    }
    result
}

/// Puts words in title case, as the filter: words begin behind white space, hyphens and opening brackets only.
fn title(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let begins = |letter: char| unicode::is_space(letter) || "-({[<".contains(letter);
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let end = if begins(first) {
            rest.find(|letter| !begins(letter)).unwrap_or(rest.len())
        } else {
            rest.find(begins).unwrap_or(rest.len())
        };
        let (word, after) = rest.split_at(end);
        let (head, tail) = word.split_at(first.len_utf8());
        result.push_str(&head.to_uppercase());
        result.push_str(&tail.to_lowercase());
        rest = after;
    }
    result
}
