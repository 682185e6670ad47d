//! Possible readings of a request's path: those known from frameworks of many languages. A guard
//! must cover all of them.

use percent_encoding::percent_decode_str;

/// Returns the first segments of `path` in all readings.
pub(crate) fn first_segments(path: &str) -> Vec<String> {
    let mut found = Vec::new();
    // A URL reference, which may begin with a host (RFC 3986, section 4.2): Node's `new URL`, PHP's
    // `parse_url`, Java's HttpServer, Python's `urlsplit`.
    let after_host = path.strip_prefix("//").and_then(|rest| Some(&rest[rest.find('/')?..]));
    for path in [Some(path), after_host].into_iter().flatten() {
        let bytes: Vec<u8> = percent_decode_str(path).collect();
        for text in [lossy(&bytes), dropped(&bytes), latin1(&bytes), overlong(&bytes)] {
            found.push(first(&text, false));
            found.push(first(&text, true));
        }
        // Segments before escapes, and parameters before both.
        for text in [path.to_owned(), without_parameters(path)] {
            let first = first(&text, true);
            found.push(lossy(&percent_decode_str(&first).collect::<Vec<_>>()));
        }
    }
    found
}

/// Returns the first segment of a path resolved as in WHATWG's URL or, if empty segments count, as
/// in other parsers; in lower case, as some file systems compare names.
fn first(path: &str, keeps_empty: bool) -> String {
    let path = without_parameters(&path.replace('\\', "/"));
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/').skip(1) {
        match segment.trim() {
            "." => {}
            ".." => drop(segments.pop()),
            "" if !keeps_empty => {}
            _ => segments.push(segment),
        }
    }
    let first = segments.into_iter().find(|segment| !segment.is_empty()).unwrap_or_default();
    first.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect()
}

/// Removes Java's matrix parameters.
fn without_parameters(path: &str) -> String {
    let name = |segment: &str| segment.split(';').next().unwrap_or_default().to_owned();
    path.split('/').map(name).collect::<Vec<_>>().join("/")
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Decodes like Bottle's `errors="ignore"`.
fn dropped(bytes: &[u8]) -> String {
    bytes.utf8_chunks().map(|chunk| chunk.valid()).collect()
}

/// Decodes like WSGI's strings (PEP 3333).
fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

/// Decodes UTF-8 including overlong forms, which used to be allowed: `%c0%af` is a slash.
fn overlong(bytes: &[u8]) -> String {
    let mut text = String::new();
    let mut rest = bytes;
    while let [first, others @ ..] = rest {
        match (first, others) {
            (0xc0..=0xc1, [next @ 0x80..=0xbf, others @ ..]) => {
                text.push(char::from((first & 0x1f) << 6 | (next & 0x3f)));
                rest = others;
            }
            _ => {
                text.push(char::from(*first));
                rest = others;
            }
        }
    }
    text
}
