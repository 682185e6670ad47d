//! The attacks, and the limits for the memory that they use.

pub(super) struct Case {
    pub(super) name: &'static str,
    /// The attack's name.
    pub(super) attack: &'static str,
    pub(super) nginx_has_it: bool,
    /// How much more memory the proxy may use than before, in MiB.
    pub(super) bound: f64,
    /// How many files the proxy may open.
    pub(super) files: u64,
    /// The gateway's configuration, in addition to that of all cases.
    pub(super) configuration: &'static str,
    pub(super) in_database: bool,
    /// Whether the attack uses HTTP/2, for which nginx has a separate port.
    pub(super) is_http2: bool,
    /// Whether the attack, and the bystander, use the admin address.
    pub(super) is_on_admin: bool,
    pub(super) is_of_admin: bool,
    /// Whether all attackers change one session.
    pub(super) is_storm: bool,
    /// The size of the attacker's session in bytes.
    pub(super) costly: Option<usize>,
    pub(super) shows_connections: bool,
    pub(super) shows_sent: bool,
    pub(super) shows_held: bool,
}

const PLAIN: Case = Case {
    name: "",
    attack: "",
    nginx_has_it: false,
    bound: 64.0,
    files: 8192,
    configuration: "",
    in_database: false,
    is_http2: false,
    is_on_admin: false,
    is_of_admin: false,
    is_storm: false,
    costly: None,
    shows_connections: false,
    shows_sent: false,
    shows_held: false,
};

/// The usual limit of open files per process.
const FEW_FILES: u64 = 1024;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "conflict storm: 1,000 parallel changes of one session, MongoDB; nginx: the same requests without sessions",
        attack: "storm",
        // Without sessions: 1,000 connections that ask for a page as soon as they are answered.
        nginx_has_it: true,
        // 1,000 connections with requests: 128 KiB each.
        bound: 128.0,
        in_database: true,
        is_storm: true,
        ..PLAIN
    },
    Case {
        name: "a slow page on 6 × 128 HTTP/2 streams, at most 1,024 open files",
        attack: "streams",
        nginx_has_it: true,
        files: FEW_FILES,
        is_http2: true,
        shows_held: true,
        ..PLAIN
    },
    Case {
        name: "headers of 16 MiB, 4 connections",
        attack: "header",
        nginx_has_it: true,
        bound: 16.0,
        shows_sent: true,
        ..PLAIN
    },
    Case {
        name: "500 idle HTTP/2 connections that answer pings (`header_ms` and nginx's \
               `keepalive_timeout`: 1 s)",
        attack: "pings",
        nginx_has_it: true,
        // 128 KiB each.
        bound: 64.0,
        configuration: "[timeouts]\nheader_ms = 1000\n",
        is_http2: true,
        shows_connections: true,
        ..PLAIN
    },
    Case {
        name: "4,000 connections that sent one byte, `P`",
        attack: "byte",
        nginx_has_it: true,
        // 16 KiB each.
        bound: 64.0,
        shows_connections: true,
        ..PLAIN
    },
    Case {
        name: "200 senders of a byte a second",
        attack: "senders",
        nginx_has_it: true,
        // A connection, and the buffered part of a body: 64 KiB and more.
        bound: 32.0,
        shows_held: true,
        ..PLAIN
    },
    Case {
        name: "200 readers of a byte a second, pages of 16 MiB",
        attack: "readers",
        nginx_has_it: true,
        bound: 128.0,
        shows_held: true,
        ..PLAIN
    },
    Case {
        name: "HPACK: small frames, headers of 120 KiB, 32 × 128 streams",
        attack: "hpack",
        nginx_has_it: true,
        is_http2: true,
        shows_sent: true,
        ..PLAIN
    },
    Case {
        name: "HPACK: the same, headers that never end, 400 connections",
        attack: "continuation",
        nginx_has_it: true,
        is_http2: true,
        shows_sent: true,
        ..PLAIN
    },
    Case {
        name: "1,200 silent connections at the admin address, at most 1,024 open files; the \
               bystander asks for `/readyz` there",
        attack: "silent",
        bound: 32.0,
        files: FEW_FILES,
        is_on_admin: true,
        is_of_admin: true,
        shows_connections: true,
        ..PLAIN
    },
    Case {
        name: "the same, the bystander a visitor",
        attack: "silent",
        bound: 32.0,
        files: FEW_FILES,
        is_on_admin: true,
        shows_connections: true,
        ..PLAIN
    },
    Case {
        name: "wrong admin tokens, 8 connections",
        attack: "tokens",
        bound: 16.0,
        is_on_admin: true,
        ..PLAIN
    },
    Case {
        name: "a session of 1 MiB of tiny keys, 4 connections",
        attack: "visits",
        in_database: true,
        costly: Some(1_000_000),
        ..PLAIN
    },
    Case {
        name: "a session of 15 MiB of tiny keys, 4 connections",
        attack: "visits",
        // Four at a time, each several times in memory while the driver reads it.
        bound: 256.0,
        in_database: true,
        costly: Some(15 << 20),
        ..PLAIN
    },
];
