//! Splits JSON text (RFC 8259) into the members of an object without interpreting them, in one pass
//! and without copying.
//!
//! `serde_json` parses values. Every request needs only their extent, which a dedicated scanner
//! finds faster. A test checks that both accept the same texts.

use std::borrow::Cow;

/// The text is not JSON of the expected kind.
#[derive(Debug, PartialEq)]
pub(crate) struct Invalid;

/// The raw key of a member, with its quotes and escapes.
#[derive(Clone, Debug)]
pub(crate) struct Key<'a> {
    raw: Cow<'a, str>,
    /// The unescaped name, if the key has escapes, which is rare. It is decoded once: keys are
    /// compared again and again.
    name: Option<Vec<u8>>,
}

impl Key<'_> {
    /// Creates a key from its raw text, with quotes and without escapes.
    pub(crate) const fn plain(raw: &'static str) -> Key<'static> {
        Key { raw: Cow::Borrowed(raw), name: None }
    }

    /// Creates the key `name`, as JavaScript writes it.
    pub(crate) fn of(name: &str) -> Key<'static> {
        let is_escaped = plain(name.as_bytes()) < name.len();
        let raw = if is_escaped {
            serde_json::Value::from(name).to_string()
        } else {
            ["\"", name, "\""].concat()
        };
        Key { name: is_escaped.then(|| unescaped(&raw)), raw: Cow::Owned(raw) }
    }

    /// Returns the raw text.
    pub(crate) fn raw(&self) -> &str {
        &self.raw
    }

    /// Returns the unescaped key as UTF-8, except that lone surrogates have three bytes each, like
    /// other characters of that range (WTF-8).
    pub(crate) fn name(&self) -> &[u8] {
        match &self.name {
            Some(name) => name,
            None => &self.raw.as_bytes()[1..self.raw.len() - 1],
        }
    }
}

/// Decodes a JSON string that is valid.
fn unescaped(raw: &str) -> Vec<u8> {
    let mut reader = serde_json::Deserializer::from_str(raw);
    serde::Deserializer::deserialize_bytes(&mut reader, Bytes).unwrap_or_default()
}

impl PartialEq for Key<'_> {
    /// Whether both have the same unescaped key.
    fn eq(&self, other: &Self) -> bool {
        self.raw == other.raw
            || ((self.name.is_some() || other.name.is_some()) && self.name() == other.name())
    }
}

struct Bytes;

impl serde::de::Visitor<'_> for Bytes {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a string")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
        Ok(bytes.to_vec())
    }
}

/// Passes the key and the raw value of every member of the object `text` to `member`. If the text
/// turns out to be invalid, earlier members have already been passed. `member` can stop the scan
/// with an error.
pub(crate) fn members<'a>(
    text: &'a str,
    mut member: impl FnMut(Key<'a>, &'a str) -> Result<(), Invalid>,
) -> Result<(), Invalid> {
    let mut scan = Scan { text, at: 0 };
    scan.space();
    scan.expect(b'{')?;
    scan.space();
    if scan.takes(b'}') {
        return scan.end();
    }
    scan.member(&mut member)?;
    members_from(text, scan.at, member)
}

/// Like [`members`], starting at `at` in `text`, which must be the end of a member.
pub(crate) fn members_from<'a>(
    text: &'a str,
    at: usize,
    mut member: impl FnMut(Key<'a>, &'a str) -> Result<(), Invalid>,
) -> Result<(), Invalid> {
    let mut scan = Scan { text, at };
    scan.space();
    while scan.takes(b',') {
        scan.space();
        scan.member(&mut member)?;
        scan.space();
    }
    scan.expect(b'}')?;
    scan.end()
}

/// Returns `text` without surrounding white space if it is a single JSON value.
pub(crate) fn value(text: &str) -> Result<&str, Invalid> {
    let mut scan = Scan { text, at: 0 };
    scan.space();
    let begin = scan.at;
    scan.value()?;
    let value = &text[begin..scan.at];
    scan.end()?;
    Ok(value)
}

/// A position in a text.
struct Scan<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scan<'a> {
    fn member(
        &mut self,
        member: &mut impl FnMut(Key<'a>, &'a str) -> Result<(), Invalid>,
    ) -> Result<(), Invalid> {
        let key = self.key()?;
        let begin = self.at;
        self.value()?;
        member(key, &self.text[begin..self.at])
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn takes(&mut self, byte: u8) -> bool {
        let is_there = self.peek() == Some(byte);
        self.at += usize::from(is_there);
        is_there
    }

    fn expect(&mut self, byte: u8) -> Result<(), Invalid> {
        if self.takes(byte) { Ok(()) } else { Err(Invalid) }
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn end(&mut self) -> Result<(), Invalid> {
        self.space();
        if self.at == self.text.len() { Ok(()) } else { Err(Invalid) }
    }

    /// Scans one value of any kind. Nesting uses the heap, not the stack.
    fn value(&mut self) -> Result<(), Invalid> {
        // For each open container, whether it is an object.
        let mut open = Vec::new();
        loop {
            match self.peek().ok_or(Invalid)? {
                b'"' => {
                    self.string()?;
                }
                b'{' => {
                    self.at += 1;
                    self.space();
                    if !self.takes(b'}') {
                        self.key()?;
                        open.push(true);
                        continue;
                    }
                }
                b'[' => {
                    self.at += 1;
                    self.space();
                    if !self.takes(b']') {
                        open.push(false);
                        continue;
                    }
                }
                b't' => self.word("true")?,
                b'f' => self.word("false")?,
                b'n' => self.word("null")?,
                _ => self.number()?,
            }
            // After a value: its container continues or ends.
            loop {
                let Some(is_object) = open.last() else { return Ok(()) };
                let is_object = *is_object;
                self.space();
                if self.takes(b',') {
                    self.space();
                    if is_object {
                        self.key()?;
                    }
                    break;
                }
                self.expect(if is_object { b'}' } else { b']' })?;
                open.pop();
            }
        }
    }

    /// Scans a key, including its colon and white space.
    fn key(&mut self) -> Result<Key<'a>, Invalid> {
        let begin = self.at;
        let is_escaped = self.string()?;
        let raw = &self.text[begin..self.at];
        self.space();
        self.expect(b':')?;
        self.space();
        Ok(Key { raw: Cow::Borrowed(raw), name: is_escaped.then(|| unescaped(raw)) })
    }

    /// Scans a string; returns whether it has escapes.
    fn string(&mut self) -> Result<bool, Invalid> {
        self.expect(b'"')?;
        let bytes = self.text.as_bytes();
        let mut is_escaped = false;
        loop {
            self.at += plain(&bytes[self.at..]);
            match self.peek().ok_or(Invalid)? {
                b'"' => {
                    self.at += 1;
                    return Ok(is_escaped);
                }
                b'\\' => {
                    is_escaped = true;
                    self.at += match bytes[self.at + 1..] {
                        [b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => 2,
                        [b'u', a, b, c, d, ..]
                            if [a, b, c, d].iter().all(u8::is_ascii_hexdigit) =>
                        {
                            6
                        }
                        _ => return Err(Invalid),
                    };
                }
                _ => return Err(Invalid),
            }
        }
    }

    fn number(&mut self) -> Result<(), Invalid> {
        self.takes(b'-');
        if !self.takes(b'0') {
            self.digits()?;
        }
        if self.takes(b'.') {
            self.digits()?;
        }
        if self.takes(b'e') || self.takes(b'E') {
            let _ = self.takes(b'+') || self.takes(b'-');
            self.digits()?;
        }
        Ok(())
    }

    /// Scans one or more digits.
    fn digits(&mut self) -> Result<(), Invalid> {
        let begin = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at > begin { Ok(()) } else { Err(Invalid) }
    }

    fn word(&mut self, word: &str) -> Result<(), Invalid> {
        if !self.text[self.at..].starts_with(word) {
            return Err(Invalid);
        }
        self.at += word.len();
        Ok(())
    }
}

/// Returns the number of bytes before the first quote, backslash or control character.
fn plain(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let mut at = 0;
    // Eight bytes at a time. From "Bit Twiddling Hacks": `(x - ONES) & !x & HIGH` marks the first
    // byte of x that is 0 (and possibly later ones, which do not matter).
    while let Some(chunk) = bytes[at..].first_chunk::<8>() {
        let word = u64::from_le_bytes(*chunk);
        let below = |x: u64, n: u64| x.wrapping_sub(ONES * n) & !x & HIGH;
        let equal = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
        let found = below(word, 0x20) | equal(b'"') | equal(b'\\');
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let rest = bytes[at..].iter().position(|b| matches!(b, b'"' | b'\\' | 0..0x20));
    rest.map_or(bytes.len(), |rest| at + rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    fn ours(text: &str) -> Option<Vec<(Vec<u8>, &str)>> {
        let mut found = Vec::new();
        members(text, |key, value| {
            found.push((key.name().to_vec(), value));
            Ok(())
        })
        .ok()?;
        Some(found)
    }

    #[test]
    fn members_are_given_as_they_are_written() {
        let text = " { \"a\" : [1, {\"b\":[]}] ,\"\\u0062\":-1.50E+3,\"c\":\"x\\\"}\" } ";
        let expected: Vec<(Vec<u8>, &str)> = vec![
            (b"a".into(), "[1, {\"b\":[]}]"),
            (b"b".into(), "-1.50E+3"),
            (b"c".into(), "\"x\\\"}\""),
        ];
        assert_eq!(ours(text), Some(expected));
        assert_eq!(ours("{}"), Some(vec![]));
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for text in [
            "",
            "{",
            "[]",
            "null",
            "{}}",
            "{} x",
            "{,}",
            "{\"a\":1,}",
            "{\"a\" 1}",
            "{\"a\":}",
            "{a:1}",
            "{\"a\":01}",
            "{\"a\":1.}",
            "{\"a\":.5}",
            "{\"a\":+1}",
            "{\"a\":1e}",
            "{\"a\":-}",
            "{\"a\":tru}",
            "{\"a\":[1,]}",
            "{\"a\":[1}",
            "{\"a\":\"\n\"}",
            "{\"a\":\"\\x\"}",
            "{\"a\":\"\\u12g4\"}",
            "{\"a\":\"\\",
            "{\"a\":NaN}",
            "\u{feff}{}",
        ] {
            assert_eq!(ours(text), None, "{text}");
        }
    }

    #[test]
    fn names_are_compared_by_what_they_say() {
        let key = |text| {
            let mut found = None;
            members(text, |key, _| {
                found = Some(key);
                Ok(())
            })
            .unwrap();
            found.unwrap()
        };
        assert_eq!(key(r#"{"a":1}"#), key(r#"{"\u0061":1}"#));
        assert_eq!(key(r#"{"\ud800":1}"#), key(r#"{"\uD800":1}"#));
        assert_ne!(key(r#"{"\ud800":1}"#), key(r#"{"\ud801":1}"#));
        assert_ne!(key(r#"{"\ud800":1}"#), key(r#"{"\\ud800":1}"#));
        assert_eq!(Key::of("a\"\u{1}é"), key("{\"a\\\"\\u0001é\":1}"));
    }

    #[test]
    fn deep_nesting_takes_no_stack() {
        let deep = format!("{}{}", "[".repeat(1 << 20), "]".repeat(1 << 20));
        assert_eq!(value(&deep).map(str::len), Ok(1 << 21));
    }

    #[test]
    fn special_bytes_are_found_at_every_place() {
        for length in 0..40 {
            for special in [b'"', b'\\', 0, 0x1f] {
                for at in 0..length {
                    let mut bytes = vec![0xff; length];
                    bytes[at] = special;
                    assert_eq!(plain(&bytes), at);
                }
            }
            assert_eq!(plain(&vec![b' '; length]), length);
        }
    }

    fn json() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("null".to_owned()),
            Just("true".to_owned()),
            "-?(0|[1-9][0-9]{0,3})(\\.[0-9]{1,2})?([eE][+-]?[0-9])?",
            "\"([a-z é\u{1F600}]|\\\\[\"\\\\/bfnrt]|\\\\u[0-9a-f]{4}){0,12}\"",
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            let pair =
                ("\"[a-c]\"", inner.clone()).prop_map(|(key, value)| format!("{key}: {value}"));
            prop_oneof![
                proptest::collection::vec(inner, 0..4).prop_map(|v| format!("[{}]", v.join(" ,"))),
                proptest::collection::vec(pair, 0..4).prop_map(|v| format!("{{ {}}}", v.join(","))),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_same_values_are_accepted_as_by_serde(
            valid in json(),
            broken in any::<prop::sample::Index>(),
            with in "[ \\x00-\\x7fé]?",
        ) {
            prop_assert_eq!(value(&valid), Ok(&*valid));
            let mut changed: Vec<char> = valid.chars().collect();
            let at = broken.index(changed.len());
            changed.splice(at..=at, with.chars());
            let changed: String = changed.into_iter().collect();
            let theirs = serde_json::from_str::<&RawValue>(&changed).ok().map(RawValue::get);
            prop_assert_eq!(value(&changed).ok(), theirs);
        }
    }
}
