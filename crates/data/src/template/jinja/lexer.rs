//! Splits a template's source into tokens, with `trim_blocks` and `lstrip_blocks`.

use super::{
    error::{Fault, Result},
    literal,
    token::{Kind, Token},
    unicode::{is_space, is_word, rstrip},
};

/// Operators, longer ones first.
const OPERATORS: [&str; 26] = [
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}", ">", "<", "=", ".",
    ":", "|", ",", ";",
];

/// Splits a source into tokens.
///
/// # Errors
/// A [`Fault`] with the line for what is no token, or is not closed.
pub(crate) fn tokenize(source: &str) -> Result<Vec<Token>> {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let source = source.strip_suffix('\n').unwrap_or(&source);
    let mut lexer = Lexer { source, at: 0, line: 1, line_start: true, tokens: Vec::new() };
    while lexer.at < source.len() {
        lexer.data()?;
    }
    lexer.push(Kind::End);
    Ok(lexer.tokens)
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
    line: u32,
    /// Whether what was read last ended a line.
    line_start: bool,
    tokens: Vec<Token>,
}

/// What begins at a brace.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Opening {
    Print,
    Block,
    Comment,
    Raw,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.source[self.at..]
    }

    fn push(&mut self, kind: Kind) {
        self.tokens.push(Token { kind, line: self.line });
    }

    fn fault(&self, reason: &str) -> Box<Fault> {
        Fault::new(reason).at(self.line)
    }

    fn advance(&mut self, bytes: usize) {
        let passed = &self.source[self.at..self.at + bytes];
        self.line += u32::try_from(passed.matches('\n').count()).unwrap_or(u32::MAX);
        self.line_start = passed.ends_with('\n');
        self.at += bytes;
    }

    /// Reads text up to the next tag, and the tag.
    fn data(&mut self) -> Result<()> {
        let Some((offset, opening, length)) = next_opening(self.rest()) else {
            let text = self.rest();
            self.push(Kind::Data(text.to_owned()));
            self.at = self.source.len();
            return Ok(());
        };
        let text = &self.rest()[..offset];
        let sign = self.rest()[offset + 2..].chars().next();
        let kept = stripped(text, sign, self.line_start, opening == Opening::Print);
        if !kept.is_empty() {
            self.push(Kind::Data(kept.to_owned()));
        }
        self.advance(offset + length);
        match opening {
            Opening::Comment => self.comment(),
            Opening::Raw => self.raw(),
            Opening::Print => self.tag(Kind::PrintBegin, Kind::PrintEnd),
            Opening::Block => self.tag(Kind::BlockBegin, Kind::BlockEnd),
        }
    }

    fn comment(&mut self) -> Result<()> {
        let rest = self.rest();
        if rest.is_empty() {
            return Ok(());
        }
        let end = rest.find("#}").ok_or_else(|| self.fault("a comment is not closed"))?;
        let sign = rest[..end].chars().next_back();
        self.advance(end + 2);
        self.after(sign, true);
        Ok(())
    }

    fn raw(&mut self) -> Result<()> {
        let rest = self.rest();
        if rest.is_empty() {
            return Ok(());
        }
        let mut from = 0;
        while let Some(found) = rest[from..].find("{%") {
            let start = from + found;
            if let Some((length, sign)) = endraw(&rest[start..]) {
                let opened = rest[start + 2..].chars().next();
                let kept = stripped(&rest[..start], opened, self.line_start, false);
                if !kept.is_empty() {
                    self.push(Kind::Data(kept.to_owned()));
                }
                self.advance(start + length);
                self.after(sign, true);
                return Ok(());
            }
            from = start + 2;
        }
        Err(self.fault("a raw block is not closed"))
    }

    /// Passes the space behind a tag that its closing asks to drop.
    fn after(&mut self, sign: Option<char>, trim: bool) {
        let rest = self.rest();
        let bytes = match sign {
            Some('-') => rest.len() - rest.trim_start_matches(is_space).len(),
            Some('+') => 0,
            _ => usize::from(trim && rest.starts_with('\n')),
        };
        if bytes > 0 {
            self.advance(bytes);
        }
    }

    fn tag(&mut self, begin: Kind, end: Kind) -> Result<()> {
        self.push(begin);
        let mut open: Vec<&'static str> = Vec::new();
        loop {
            let spaces = self.rest().len() - self.rest().trim_start_matches(is_space).len();
            self.advance(spaces);
            if self.rest().is_empty() {
                return Ok(());
            }
            if open.is_empty() && self.closing(&end) {
                return Ok(());
            }
            self.inside(&mut open)?;
        }
    }

    fn closing(&mut self, end: &Kind) -> bool {
        let (mark, block) = if *end == Kind::BlockEnd { ("%}", true) } else { ("}}", false) };
        let rest = self.rest();
        let sign = rest.chars().next().filter(|sign| *sign == '-' || block && *sign == '+');
        let signs = usize::from(sign.is_some());
        if !rest[signs..].starts_with(mark) {
            return false;
        }
        self.push(end.clone());
        self.advance(signs + mark.len());
        self.after(sign, block);
        true
    }

    /// Reads one token inside of a tag.
    fn inside(&mut self, open: &mut Vec<&'static str>) -> Result<()> {
        let rest = self.rest();
        let first = rest.chars().next().unwrap_or_default();
        let after_dot = self.source[..self.at].ends_with('.');
        let (kind, length) = if let Some((kind, length)) = literal::number(rest, after_dot) {
            (kind, length)
        } else if is_word(first) {
            let length = rest.find(|letter| !is_word(letter)).unwrap_or(rest.len());
            if first.is_numeric() {
                return Err(self.fault("a name begins with a digit"));
            }
            (Kind::Name(rest[..length].to_owned()), length)
        } else if first == '\'' || first == '"' {
            let length = literal::text_length(rest).ok_or_else(|| self.fault("a text literal is not closed"))?;
            let text = literal::unescape(&rest[1..length - 1]).map_err(|fault| fault.at(self.line))?;
            (Kind::Text(text), length)
        } else {
            let operator = OPERATORS.iter().find(|operator| rest.starts_with(**operator));
            let operator = operator.ok_or_else(|| self.fault("a character has no meaning inside of a tag"))?;
            self.balance(operator, open)?;
            (Kind::Operator(operator), operator.len())
        };
        self.push(kind);
        self.advance(length);
        Ok(())
    }

    fn balance(&self, operator: &'static str, open: &mut Vec<&'static str>) -> Result<()> {
        match operator {
            "{" => open.push("}"),
            "(" => open.push(")"),
            "[" => open.push("]"),
            "}" | ")" | "]" if open.pop() != Some(operator) => {
                return Err(self.fault(&format!("'{operator}' closes nothing")));
            }
            _ => {}
        }
        Ok(())
    }
}

/// Finds the next tag: where, what, and the length of its opening.
fn next_opening(text: &str) -> Option<(usize, Opening, usize)> {
    let bytes = text.as_bytes();
    let mut from = 0;
    while let Some(found) = text[from..].find('{') {
        let at = from + found;
        let opening = match bytes.get(at + 1) {
            Some(b'{') => Opening::Print,
            Some(b'#') => Opening::Comment,
            Some(b'%') => Opening::Block,
            _ => {
                from = at + 1;
                continue;
            }
        };
        if opening == Opening::Block
            && let Some(length) = raw_opening(&text[at..])
        {
            return Some((at, Opening::Raw, length));
        }
        let signed = matches!(bytes.get(at + 2), Some(b'-' | b'+'));
        return Some((at, opening, 2 + usize::from(signed)));
    }
    None
}

/// Returns the length of a `{% raw %}`, with the space behind it that `-%}` drops.
fn raw_opening(text: &str) -> Option<usize> {
    let rest = text.strip_prefix("{%")?;
    let rest = rest.strip_prefix(['-', '+']).unwrap_or(rest).trim_start_matches(is_space);
    let rest = rest.strip_prefix("raw")?.trim_start_matches(is_space);
    let rest = match rest.strip_prefix("-%}") {
        Some(rest) => rest.trim_start_matches(is_space),
        None => rest.strip_prefix("%}")?,
    };
    Some(text.len() - rest.len())
}

/// Returns the length of an `{% endraw %}` without what it drops behind it, and its closing sign.
fn endraw(text: &str) -> Option<(usize, Option<char>)> {
    let rest = text.strip_prefix("{%")?;
    let rest = rest.strip_prefix(['-', '+']).unwrap_or(rest).trim_start_matches(is_space);
    let rest = rest.strip_prefix("endraw")?.trim_start_matches(is_space);
    let sign = rest.chars().next().filter(|sign| "+-".contains(*sign));
    let rest = rest.strip_prefix(['-', '+']).unwrap_or(rest).strip_prefix("%}")?;
    Some((text.len() - rest.len(), sign))
}

/// Returns the text before a tag without the space that the tag drops.
fn stripped(text: &str, sign: Option<char>, line_start: bool, print: bool) -> &str {
    match sign {
        Some('-') => rstrip(text),
        Some('+') => text,
        _ if print => text,
        _ => {
            let start = text.rfind('\n').map_or(0, |at| at + 1);
            let indent = &text[start..];
            let drops = (start > 0 || line_start) && !indent.is_empty() && indent.chars().all(is_space);
            if drops { &text[..start] } else { text }
        }
    }
}
