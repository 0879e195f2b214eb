//! JSON as the test server writes it: one value on a line.

use std::{fmt::Write, ops::Index};

/// A JSON value. Indexing with an unknown member returns `Null`.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    List(Vec<Value>),
    Object(Vec<(String, Value)>),
}

impl Value {
    /// The text, and an empty one for any other value.
    pub fn text(&self) -> &str {
        if let Value::Text(text) = self { text } else { "" }
    }

    /// The items of a list, and none of any other value.
    pub fn items(&self) -> &[Value] {
        if let Value::List(items) = self { items } else { &[] }
    }

    /// The members of an object, and none of any other value.
    pub fn members(&self) -> &[(String, Value)] {
        if let Value::Object(members) = self { members } else { &[] }
    }
}

impl Index<&str> for Value {
    type Output = Value;

    fn index(&self, name: &str) -> &Value {
        self.members().iter().find(|(found, _)| found == name).map_or(&Value::Null, |(_, value)| value)
    }
}

/// A text as a JSON string.
pub(crate) fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for one in text.chars() {
        match one {
            '"' | '\\' => quoted.extend(['\\', one]),
            '\0'..='\x1f' => write!(quoted, "\\u{:04x}", one as u32).expect("a String grows"),
            _ => quoted.push(one),
        }
    }
    quoted + "\""
}

/// The value of a line, or `None` if it is not JSON.
pub(crate) fn parse(line: &str) -> Option<Value> {
    let mut rest = line;
    let value = value(&mut rest)?;
    rest.trim().is_empty().then_some(value)
}

fn value(rest: &mut &str) -> Option<Value> {
    *rest = rest.trim_start();
    match rest.chars().next()? {
        '{' => {
            list(rest, '}', |rest| Some((text(rest)?, skip(rest, ":").and_then(|()| value(rest))?))).map(Value::Object)
        }
        '[' => list(rest, ']', value).map(Value::List),
        '"' => text(rest).map(Value::Text),
        _ => {
            let end = rest.find([',', ']', '}']).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            *rest = after;
            match word.trim_end() {
                "null" => Some(Value::Null),
                "true" | "false" => Some(Value::Bool(word.starts_with('t'))),
                number if !number.starts_with(|one: char| one.is_alphabetic()) => {
                    number.parse().ok().map(Value::Number)
                }
                _ => None,
            }
        }
    }
}

fn list<T>(rest: &mut &str, end: char, item: impl Fn(&mut &str) -> Option<T>) -> Option<Vec<T>> {
    *rest = rest[1..].trim_start();
    let mut found = Vec::new();
    while !rest.starts_with(end) {
        if !found.is_empty() {
            skip(rest, ",")?;
        }
        found.push(item(rest)?);
        *rest = rest.trim_start();
    }
    *rest = &rest[1..];
    Some(found)
}

fn skip(rest: &mut &str, mark: &str) -> Option<()> {
    *rest = rest.trim_start().strip_prefix(mark)?;
    Some(())
}

fn text(rest: &mut &str) -> Option<String> {
    skip(rest, "\"")?;
    let mut units = Vec::new(); // UTF-16, as escapes are
    loop {
        let one = next(rest)?;
        match one {
            '"' => return String::from_utf16(&units).ok(),
            '\\' => units.push(match next(rest)? {
                'n' => 10,
                't' => 9,
                'r' => 13,
                'b' => 8,
                'f' => 12,
                'u' => {
                    let digits = rest.get(..4)?;
                    *rest = &rest[4..];
                    u16::from_str_radix(digits, 16).ok()?
                }
                other => other as u16,
            }),
            _ => units.extend_from_slice(one.encode_utf16(&mut [0; 2])),
        }
    }
}

fn next(rest: &mut &str) -> Option<char> {
    let one = rest.chars().next()?;
    *rest = &rest[one.len_utf8()..];
    Some(one)
}

#[cfg(test)]
mod tests {
    use super::{Value, parse, quote};

    #[test]
    fn a_value_of_each_kind_is_parsed() {
        let value = parse(r#" {"a": [1, -2.5e1, true, null], "b": {"c": "d"}, "e": []} "#).unwrap();
        assert_eq!(value["a"].items()[1], Value::Number(-25.0));
        assert_eq!(value["a"].items()[2..], [Value::Bool(true), Value::Null]);
        assert_eq!((value["b"]["c"].text(), value["e"].items().len()), ("d", 0));
        assert_eq!(value["missing"]["member"], Value::Null);
    }

    #[test]
    fn a_text_is_the_same_after_quoting_and_parsing() {
        let text = "\"quoted\" \\ line\n tab\t \u{1} größer 日本 🌡";
        assert_eq!(parse(&quote(text)).unwrap().text(), text);
        assert_eq!(parse(r#""\ud83c\udf21 \/ \b\f""#).unwrap().text(), "🌡 / \u{8}\u{c}");
    }

    #[test]
    fn a_line_that_is_not_json_is_rejected() {
        for line in ["", "{", "[1", "[1 2]", "{\"a\"}", "\"open", "\"\\u12\"", "yes", "nan", "{} {}", "{\"a\": 1,}"] {
            assert_eq!(parse(line), None, "{line}");
        }
    }
}
