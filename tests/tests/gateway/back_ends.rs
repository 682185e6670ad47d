//! Guards in front of real back ends that each parse a request's target in a different way: no
//! spelling reaches a guarded page, and ordinary targets arrive unchanged.

use std::thread;

use edge_session_tests::{BackEnd, Launch, Server, Upstream, Wire};

const DENY: &str = "[[guard]]\npaths = [\"/internal\"]\ndeny = true\n";
const LOGIN: &str =
    "[[guard]]\npaths = [\"/internal\"]\nrequire = \"/passport/user\"\nlogin = \"/login\"\n";
const ALL_BUT_PUBLIC: &str =
    "[[guard]]\npaths = [\"/\"]\nexcept = [\"/public\", \"/favicon.ico\"]\ndeny = true\n";

/// The targets that are tried before the mutations.
const BY_NAME: &[&str] = &[
    "/internal",
    "//x/internal",
    "///x/internal",
    "//user@x/internal",
    "//internal",
    "/internal%ff",
    "/in%fftern%80al",
    "/%c0%afinternal",
    "/internal%c0%af",
    "/x/..%c0%afinternal",
    "/internal%3Fx",
    "/internal%23x",
    "/internal%3B/x",
    "/public/..%3Fx/internal",
    "/public/..%23/internal",
    "/public/%ef%bc%8e%ef%bc%8e/internal",
    "/public/.%c2%ad./internal",
    "/%ef%bd%89nternal",
];

/// Targets that only an application's own routing maps to `/internal`: a guard on that path does
/// not cover them; a guard on everything except some paths does.
const BY_ROUTING: &[&str] = &["/internal.json", "/index.php/internal", "/%2569nternal"];

const MUTATIONS: usize = 10_000;

fn back_ends() -> Vec<(&'static str, BackEnd)> {
    vec![
        ("Node's new URL", BackEnd::node("url")),
        ("Express", BackEnd::node("express")),
        ("urlsplit", BackEnd::python("raw")),
        ("Bottle", BackEnd::python("bottle")),
        ("Flask", BackEnd::python("flask")),
        ("PHP", BackEnd::php()),
    ]
}

fn gateway(back_end: &BackEnd, rules: &str) -> Server {
    Launch::new("memory:").upstream(&back_end.url()).config(rules).start()
}

/// A generator of the same numbers in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, count: usize) -> usize {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % count as u64) as usize
    }

    fn of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len())]
    }
}

const BEFORE: &[&str] = &[
    "/",
    "//",
    "///",
    "/\\",
    "\\",
    "//x",
    "///x",
    "//user@x",
    "//u:p@x:1",
    "/.",
    "/x/..",
    "/%2e",
    "/x/%2E%2e",
    "/;a",
    "/%00",
    "/%09",
    "/%20",
    "/x/..;",
    "/%c0%af",
    "/%ff",
    "/%ef%bc%8f",
    "http://x",
    "HTTP://x:80",
    "http://u@x",
    "http://",
    "/x?",
    "?",
    "/#",
    "/%23",
    "/%3f",
    "/public/..",
    "/public/%2e%2e",
    "/public/..;",
    "/public%2f..",
    "/public?",
    "/public;",
    "/public//..",
];

const WITHIN: &[&str] = &[
    "%ff",
    "%80",
    "%c0%ae",
    "%ed%a0%80",
    "%00",
    "%09",
    "%0d",
    "%0a",
    "%20",
    "%c2%ad",
    "%e2%80%8b",
    "%ef%bb%bf",
    ";",
    "\\",
    "%5c",
    "%",
    "%u0061",
    "\t",
    "\u{200b}",
    "\u{ff}",
];

const AFTER: &[&str] = &[
    "",
    "/",
    "//",
    "/x",
    "//x",
    ";a=b",
    ";/x",
    "/;x",
    "?",
    "?x=/public",
    "#x",
    "%23",
    "%3f",
    ".",
    "%2e",
    "%20",
    "+",
    "%00",
    "%00.html",
    "%0a",
    "%0d%0a",
    "%09",
    "/.",
    "/x/..",
    "/..;/internal",
    "\\",
    "%5c",
    "%2f",
    "%2Fx",
    "%ff",
    "%c0%af",
    "%c0%80",
    "%e2%80%ae",
    "~",
    "::$DATA",
    "/%2e",
    ",",
];

/// Returns a random spelling of one letter.
fn letter(dice: &mut Dice, c: char) -> String {
    let code = c as u32;
    match dice.below(12) {
        0 => c.to_ascii_uppercase().to_string(),
        1 => format!("%{code:02x}"),
        2 => format!("%{:02X}", c.to_ascii_uppercase() as u32),
        3 => format!("%25{code:02x}"),
        4 => format!("%{:02x}%{:02x}", 0xc0 | (code >> 6), 0x80 | (code & 0x3f)), // overlong
        5 => format!("%u{code:04x}"),
        6 => char::from_u32(code + 0xfee0).expect("a full-width letter").to_string(),
        7 => format!("%ef%bd%{:02x}", 0x80 + code - 0x60), // full width, for a to z, as UTF-8
        8 => match c {
            'i' => dice.of(&["\u{131}", "%c4%b1", "%c4%b0", "%e2%93%98"]).to_owned(),
            'n' => "%e2%81%bf".to_owned(),
            _ => c.to_string(),
        },
        9 => format!("{c}{}", dice.of(WITHIN)),
        _ => c.to_string(),
    }
}

fn mutation(dice: &mut Dice) -> Vec<u8> {
    let mut target = String::new();
    for _ in 0..dice.below(3) {
        target += dice.of(BEFORE);
    }
    if !target.ends_with(['/', '\\']) || dice.below(4) == 0 {
        target.push('/');
    }
    // Many mutate only a few letters, so that they pass early checks and reach later ones.
    let share = [1, 3, 8, 100][dice.below(4)];
    for c in "internal".chars() {
        match dice.below(share) {
            0 => target += &letter(dice, c),
            _ => target.push(c),
        }
    }
    for _ in 0..dice.below(3) {
        target += dice.of(AFTER);
    }
    if dice.below(500) == 0 {
        target += &"/x".repeat(2_000);
    }
    target.into_bytes()
}

/// The number of mutations tried without a guard.
const SAMPLE: usize = 300;

/// Returns mutations that satisfy the condition.
fn mutations(is_wanted: impl Fn(&[u8]) -> bool) -> Vec<Vec<u8>> {
    let mut dice = Dice(12);
    let all = std::iter::repeat_with(|| mutation(&mut dice));
    all.filter(|target| is_wanted(target)).take(MUTATIONS).collect()
}

fn request(address: &str, target: &[u8], headers: &str) -> Vec<u8> {
    let mut request = b"GET ".to_vec();
    request.extend(target);
    request.extend(format!(" HTTP/1.1\r\nHost: {address}\r\n{headers}\r\n").into_bytes());
    request
}

/// Sends the targets one after the other, on as few connections as the server allows. Calls `each`
/// with the status and the body of each response; the status is 0 if there is none.
fn play(server: &str, targets: &[Vec<u8>], mut each: impl FnMut(&[u8], u16, &str)) {
    let mut wire = Wire::open(server);
    for target in targets {
        let request = request(server, target, "");
        // The gateway may have closed the connection after a refusal.
        let answer = match wire.try_send(&request).and_then(|()| wire.try_answer()) {
            Ok(answer) => answer,
            Err(_) => {
                wire = Wire::open(server);
                match wire.try_send(&request).and_then(|()| wire.try_answer()) {
                    Ok(answer) => answer,
                    Err(_) => {
                        wire = Wire::open(server);
                        each(target, 0, "");
                        continue;
                    }
                }
            }
        };
        if answer.head.all("connection").iter().any(|it| it.eq_ignore_ascii_case("close")) {
            wire = Wire::open(server);
        }
        each(target, answer.status, &answer.text());
    }
}

/// Whether only an application's own routing maps the target to the guarded path: by its extension,
/// the script before it, or another round of decoding.
fn is_by_routing(target: &[u8]) -> bool {
    let text = String::from_utf8_lossy(target).to_ascii_lowercase();
    text.contains("%25") || text.contains("internal.") || text.contains(".php/")
}

/// Returns the targets that reveal the secret page.
fn secrets(server: &str, targets: &[Vec<u8>]) -> Vec<String> {
    let mut found = Vec::new();
    play(server, targets, |target, _, body| {
        if body == "SECRET" {
            found.push(target.escape_ascii().to_string());
        }
    });
    found
}

fn owned(targets: &[&str]) -> Vec<Vec<u8>> {
    targets.iter().map(|target| target.as_bytes().to_vec()).collect()
}

/// Tries these targets in front of every back end concurrently; returns those that pass the guard.
fn past_the_guard(rules: &str, targets: &[Vec<u8>]) -> Vec<String> {
    let all = back_ends();
    thread::scope(|scope| {
        let plays = all.iter().map(|(name, back_end)| {
            scope.spawn(move || {
                let server = gateway(back_end, rules);
                let mut found = Vec::new();
                play(&server.address(), targets, |target, status, body| {
                    if body == "SECRET" || status == 0 {
                        found.push(format!("{status} {}", target.escape_ascii()));
                    }
                });
                // The back end was running all the time.
                play(&server.address(), &owned(&["/public/x"]), |_, _, body| {
                    assert!(matches!(body, "PUBLIC" | "OTHER"), "{name}: {body}");
                });
                found.into_iter().map(|it| format!("{name}: {it}")).collect::<Vec<_>>()
            })
        });
        let plays = plays.collect::<Vec<_>>();
        plays.into_iter().flat_map(|it| it.join().expect("it plays to its end")).collect()
    })
}

#[test]
fn without_a_guard_every_back_end_shows_what_is_secret() {
    for (name, back_end) in back_ends() {
        let server = gateway(&back_end, "");
        let found = secrets(&server.address(), &owned(&["/internal", "/internal/x"]));
        assert_eq!(found, ["/internal", "/internal/x"], "{name}");
        server.stop();
    }
}

/// Otherwise, it would prove nothing that no target passes a guard.
#[test]
fn many_mutations_lead_to_what_is_secret_where_nothing_stands_before_it() {
    let targets = mutations(|target| target.iter().all(u8::is_ascii_graphic));
    for (name, back_end) in back_ends() {
        let url = back_end.url();
        let address = url.strip_prefix("http://").expect("it is an address");
        let found = secrets(address, &targets[..SAMPLE]).len();
        assert!(found > 15, "{name}: {found} of {SAMPLE}");
    }
}

#[test]
fn no_named_spelling_passes_a_guard() {
    for rules in [DENY, LOGIN, ALL_BUT_PUBLIC] {
        assert_eq!(past_the_guard(rules, &owned(BY_NAME)), [""; 0], "{rules}");
    }
}

#[test]
fn no_mutation_passes_a_guard() {
    let targets = mutations(|target| !is_by_routing(target));
    assert_eq!(past_the_guard(DENY, &targets), [""; 0]);
}

#[test]
fn nothing_at_all_passes_a_guard_on_everything_but_exceptions() {
    let mut targets = owned(BY_ROUTING);
    targets.extend(mutations(|_| true));
    assert_eq!(past_the_guard(ALL_BUT_PUBLIC, &targets), [""; 0]);
}

#[test]
fn ordinary_targets_arrive_as_they_were_sent() {
    let upstream = Upstream::parrot();
    let rules = DENY;
    let server = Launch::new("memory:").upstream(&upstream.url()).config(rules).start();
    let corpus = include_str!("../../data/targets.txt").lines().collect::<Vec<_>>();
    assert_eq!(corpus.len(), 1_000);
    let mut wrong = Vec::new();
    play(&server.address(), &owned(&corpus), |target, status, _| {
        let sent = String::from_utf8_lossy(target);
        if status >= 400 || upstream.last().target != sent {
            wrong.push(format!("{status} {sent}"));
        }
    });
    assert_eq!(wrong, [""; 0]);
    server.stop();
}

/// Returns a back end's response at `/public/headers`: the headers that it received.
fn told(back_end: &BackEnd, rules: &str, headers: &str) -> String {
    let server = gateway(back_end, rules);
    let mut wire = server.wire();
    wire.send(request(&server.address(), b"/public/headers", headers));
    let answer = wire.answer();
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.text()
}

#[test]
fn no_spelling_of_a_header_that_is_ours_reaches_an_application() {
    let mut headers = String::new();
    for mark in "!#$%&'*+.^_`|~-".chars() {
        headers += &format!("Edge{mark}Session: forged-1\r\n");
        if mark == '-' {
            continue; // a trusted proxy may send these
        }
        headers += &format!("X{mark}Forwarded{mark}User: forged-2\r\n");
        headers += &format!("X{mark}Forwarded{mark}Prefix: forged-3\r\n");
    }
    for (name, back_end) in [
        ("PHP", BackEnd::php()),
        ("Bottle", BackEnd::python("bottle")),
        ("Flask", BackEnd::python("flask")),
        ("Node", BackEnd::node("url")),
    ] {
        let told = told(&back_end, DENY, &headers);
        assert!(!told.contains("forged"), "{name}: {told}");
    }
}

#[test]
fn another_target_in_a_header_reaches_no_application_behind_a_trusted_proxy() {
    // Loopback addresses are trusted by default.
    let back_end = BackEnd::php();
    let server = gateway(&back_end, DENY);
    for header in ["X-Original-URL", "X-Rewrite-URL", "X_Original_URL", "X.Rewrite~URL"] {
        let mut wire = server.wire();
        wire.send(request(&server.address(), b"/", &format!("{header}: /internal\r\n")));
        assert_eq!(wire.answer().text(), "OTHER", "{header}");
    }
    server.stop();
}
