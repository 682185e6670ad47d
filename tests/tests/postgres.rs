//! Sessions in PostgreSQL, shared with Express and connect-pg-simple.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::Duration;

use edge_session_tests::node::ExpressApp;
use edge_session_tests::{
    Launch, PgBouncer, Postgres, SECRET, new_certificate, temp_dir, wait_for,
};

#[test]
fn express_and_the_edge_count_in_one_session() {
    for kind in ["json", "jsonb"] {
        let postgres = Postgres::start();
        postgres.run(&format!("ALTER TABLE session ALTER sess TYPE {kind}"));
        let edge = Launch::new(postgres.url()).start();
        let express = ExpressApp::with_postgres(SECRET, postgres.url());
        for sides in [[edge.url(), express.url()], [express.url(), edge.url()]] {
            let mut visitor = edge.visitor();
            for count in 0..6 {
                visitor = visitor.moved_to(sides[count % 2].clone());
                assert_eq!(visitor.get("/").count(), count as u64 + 1, "{kind}");
            }
        }
        edge.stop();
    }
}

#[test]
fn a_row_is_that_of_connect_pg_simple() {
    let postgres = Postgres::start();
    let edge =
        Launch::new(postgres.url()).config("preset = \"express\"\n[store]\nttl = 86400").start();
    let express = ExpressApp::with_postgres(SECRET, postgres.url());
    let written = [express.url(), edge.url()].map(|url| {
        let mut visitor = edge.visitor().moved_to(url);
        visitor.get("/");
        let of = |what: &str| {
            let id = visitor.session_id();
            postgres.run(&format!("SELECT {what} FROM session WHERE sid = '{id}'"))
        };
        // In whole seconds, as the time of the server's zone, which is not UTC.
        let left: f64 = of("extract(epoch FROM expire - now()::timestamp)").parse().unwrap();
        assert!((86_390.0..=86_401.0).contains(&left), "{left}");
        assert_eq!(of("extract(microseconds FROM expire)::bigint % 1000000"), "0");
        of("sess::text")
    });
    let cookie = r#"{"cookie":{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"},"#;
    assert_eq!(written[0], format!("{cookie}\"viewCount\":1}}"));
    // The built-in page also keeps a token.
    assert!(written[1].starts_with(cookie), "{}", written[1]);
    assert!(written[1].contains("\"viewCount\":1"), "{}", written[1]);
    edge.stop();
}

#[test]
fn what_postgresql_refuses_is_told_with_the_remedy_and_costs_no_session() {
    let postgres = Postgres::start();
    postgres.run("CREATE USER app PASSWORD 'app'");
    postgres.run("GRANT SELECT, INSERT, UPDATE, DELETE ON session TO app");
    // Each request on a connection of its own: what a user may do is checked at once, but other
    // settings apply to new connections.
    let server = Launch::new(&postgres.url_of("app:app")).start();
    let mut visitor = server.visitor();
    assert_eq!(visitor.get("/").count(), 1);
    let cookie = visitor.cookie().to_owned();
    // Waits until they have ended, for 10 s at most.
    let end_connections = "SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity \
                           WHERE usename = 'app'";
    let mut count = 1;
    for (hurt, heal, told) in [
        (
            "REVOKE UPDATE ON session FROM app",
            "GRANT UPDATE ON session TO app",
            "the PostgreSQL user may not do this: grant it SELECT, INSERT, UPDATE and DELETE",
        ),
        (
            "ALTER USER app SET default_transaction_read_only = on",
            "ALTER USER app RESET default_transaction_read_only",
            "this PostgreSQL server is read-only",
        ),
        (
            "ALTER USER app CONNECTION LIMIT 0",
            "ALTER USER app CONNECTION LIMIT -1",
            "PostgreSQL has no connection left",
        ),
        (
            "ALTER USER app PASSWORD 'another'",
            "ALTER USER app PASSWORD 'app'",
            "PostgreSQL refuses the user or the password",
        ),
        (
            "ALTER TABLE session RENAME TO elsewhere",
            "ALTER TABLE elsewhere RENAME TO session",
            "PostgreSQL no longer has the table of sessions",
        ),
        (
            "ALTER TABLE session RENAME expire TO ends",
            "ALTER TABLE session RENAME ends TO expire",
            "has other columns than connect-pg-simple's",
        ),
    ] {
        postgres.run(hurt);
        postgres.run(end_connections);
        assert_eq!(visitor.get("/").status, 503, "{told}");
        assert!(server.log().contains(told), "{told}: {}", server.log());
        postgres.run(heal);
        postgres.run(end_connections);
        count += 1;
        assert_eq!(visitor.get("/").count(), count, "{told}");
        assert_eq!(visitor.cookie(), cookie, "{told}");
    }
    // Only new sessions meet these.
    for (hurt, heal) in [
        (
            "ALTER TABLE session DROP CONSTRAINT session_pkey",
            "ALTER TABLE session ADD PRIMARY KEY (sid)",
        ),
        (
            "ALTER TABLE session ADD tenant int NOT NULL DEFAULT 1; \
             ALTER TABLE session ALTER tenant DROP DEFAULT",
            "ALTER TABLE session DROP tenant",
        ),
    ] {
        let told = || server.log().matches("sid varchar as the primary key").count();
        let before = told();
        postgres.run(hurt);
        assert_eq!(server.visitor().get("/").status, 503, "{hurt}");
        assert!(told() > before, "{hurt}: {}", server.log());
        postgres.run(heal);
        assert_eq!(server.visitor().get("/").count(), 1, "{heal}");
    }
    let id = visitor.session_id();
    assert!(!server.log().contains(&id), "no identifier is logged");
    server.stop();
}

#[test]
fn what_is_no_session_is_left_alone_and_a_new_one_begins() {
    let postgres = Postgres::start();
    let server = Launch::new(postgres.url()).start();
    for text in ["[]", "{\"a\":1}", "null", "\"text\"", "{\"cookie\":1}"] {
        let mut visitor = server.visitor();
        visitor.get("/");
        let old = visitor.session_id();
        postgres.run(&format!("UPDATE session SET sess = '{text}' WHERE sid = '{old}'"));
        assert_eq!(visitor.get("/").count(), 1, "{text:?}");
        assert_ne!(visitor.session_id(), old, "{text:?}");
        let left = postgres.run(&format!("SELECT sess FROM session WHERE sid = '{old}'"));
        assert_eq!(left, text);
    }
    server.stop();
}

#[test]
fn what_a_column_cannot_hold_is_the_applications_mistake() {
    let postgres = Postgres::start();
    let set = |value: &str| {
        let server = Launch::new(postgres.url()).start();
        let mut visitor = server.visitor();
        visitor.get("/login");
        let page = visitor.post("/demo/set", &[("key", "a"), ("value", value)]);
        let log = server.log();
        server.stop();
        (page.status, log)
    };
    let (status, log) = set("\0");
    assert!(status < 400, "as with connect-pg-simple: {log}");
    postgres.run("DELETE FROM session");
    postgres.run("ALTER TABLE session ALTER sess TYPE jsonb");
    let (status, log) = set("\0");
    assert_eq!(status, 500, "{log}");
    assert!(log.contains("PostgreSQL cannot store this session"), "{log}");
}

#[test]
fn a_server_without_the_table_the_database_or_the_user_is_refused_at_start() {
    let postgres = Postgres::bare();
    let url = postgres.url();
    let refusal = |url: &str| Launch::new(url).refusal();
    assert!(
        refusal(url)
            .contains("PostgreSQL has no table \"session\": create it, or set create_table")
    );
    let wrong = refusal(&postgres.url_of("edge:hunter3"));
    assert!(wrong.contains("PostgreSQL refuses the user or the password"), "{wrong}");
    assert!(!wrong.contains("hunter3"), "{wrong}");
    let other = url.replace("/postgres?", "/none?").replace(":/postgres", "");
    let other = other.strip_suffix("/postgres").map_or(other.clone(), |it| format!("{it}/none"));
    assert!(refusal(&other).contains("does not have the database in the address"));
    postgres.run("CREATE TABLE session (sid int PRIMARY KEY, sess text, expire date)");
    assert!(refusal(url).contains("has other columns than connect-pg-simple's: sid varchar"));
    for (address, told) in [
        ("postgres://", "the postgres:// address is not valid"),
        ("postgres://a:b@127.0.0.1:port/c", "the postgres:// address is not valid"),
        ("postgres://127.0.0.1/a?frobnicate=1", "unknown option `frobnicate`"),
        ("postgres://127.0.0.1:1/a", "PostgreSQL cannot be reached"),
        ("postgres://edge:p@ss?hunter2=word@127.0.0.1/a", "the postgres:// address is not valid"),
    ] {
        let output = refusal(address);
        assert!(output.contains(told), "{address}: {output}");
        assert!(!output.contains("hunter2"), "{output}");
    }
}

#[test]
fn schema_table_and_the_other_options_of_connect_pg_simple_are_respected() {
    let postgres = Postgres::bare();
    postgres.run("CREATE SCHEMA \"my app\"");
    let mut launch = Launch::new(postgres.url());
    for (key, value) in [
        ("SCHEMA", "my app"),
        ("TABLE", "the \"sessions\""),
        ("CREATE_TABLE", "true"),
        ("DISABLE_TOUCH", "true"),
        ("PRUNE_INTERVAL", "1"),
        ("TOUCH_AFTER", "0"),
        ("CONNECTIONS", "2"),
    ] {
        launch = launch.env(&format!("EDGE_SESSION_STORE_{key}"), value);
    }
    // Several processes create the table at once.
    let (server, other) = (launch.start(), launch.start());
    let mut visitor = server.visitor();
    visitor.get("/login");
    let of = |what: &str| {
        postgres.run(&format!("SELECT {what} FROM \"my app\".\"the \"\"sessions\"\"\""))
    };
    let before = of("expire");
    postgres.run("UPDATE \"my app\".\"the \"\"sessions\"\"\" SET expire = expire - interval '9 s'");
    visitor.get("/account");
    assert_ne!(of("expire"), before, "it was not touched");
    let dir = temp_dir("sessions-");
    let (done, listing) = launch.run(dir.path(), &["sessions", "list"]);
    assert!(done && listing.contains("1 of about 1 sessions"), "{listing}");
    postgres.run("UPDATE \"my app\".\"the \"\"sessions\"\"\" SET expire = now() - interval '2 s'");
    wait_for("the expired session's deletion", Duration::from_secs(10), || {
        (of("count(*)") == "0").then_some(())
    });
    let kinds = postgres.run(
        "SELECT string_agg(format_type(atttypid, atttypmod), ', ' ORDER BY attnum) \
         FROM pg_attribute WHERE attrelid = '\"my app\".\"the \"\"sessions\"\"\"'::regclass AND attnum > 0",
    );
    assert_eq!(kinds, "character varying, json, timestamp(6) without time zone");
    server.stop();
    other.stop();
}

#[test]
fn sessions_that_never_end_or_ended_before_all_time_are_what_they_are() {
    let postgres = Postgres::start();
    let server = Launch::new(postgres.url()).start();
    let mut visitor = server.visitor();
    assert_eq!(visitor.get("/").count(), 1);
    postgres.run("ALTER TABLE session ALTER expire DROP NOT NULL");
    for (end, count) in [
        ("'infinity'", 2),
        ("'294276-12-31 23:59:59'", 3),
        ("'-infinity'", 1),
        ("now() + interval '1 day'", 2),
        ("NULL", 1),
    ] {
        postgres.run(&format!("UPDATE session SET expire = {end}"));
        assert_eq!(visitor.get("/").count(), count, "{end}");
    }
    server.stop();
}

#[test]
fn statements_are_prepared_by_name_if_that_is_wanted() {
    let postgres = Postgres::with(&["-c", "log_statement=all"]);
    for (prepare, is_named) in [("false", false), ("true", true)] {
        let log = postgres.dir().join("log");
        let before = fs::read_to_string(&log).unwrap().len();
        let server = Launch::new(postgres.url())
            .env("EDGE_SESSION_STORE_PREPARE", prepare)
            .env("EDGE_SESSION_STORE_CREATE_TABLE", "true")
            .start();
        let mut visitor = server.visitor();
        assert_eq!([visitor.get("/").count(), visitor.get("/").count()], [1, 2]);
        let log = fs::read_to_string(&log).unwrap();
        let loads = log[before..].lines().filter(|line| line.contains("SELECT left(sess"));
        let loads: Vec<_> = loads.collect();
        assert!(!loads.is_empty(), "{log}");
        for load in loads {
            assert_eq!(!load.contains("execute <unnamed>"), is_named, "{load}");
        }
        server.stop();
    }
}

/// PgBouncer gives each transaction another connection, where what was prepared is missing.
#[test]
fn behind_a_pooler_that_loses_prepared_statements_no_request_fails() {
    let postgres = PgBouncer::start();
    let server = Launch::new(postgres.url())
        .env("EDGE_SESSION_STORE_PREPARE", "true")
        .env("EDGE_SESSION_STORE_CREATE_TABLE", "true")
        .start();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut visitor = server.visitor();
                for count in 1..30 {
                    assert_eq!(visitor.get("/").count(), count);
                }
            });
        }
    });
    assert!(server.log().contains("Set `prepare` to false"), "nothing was lost");
    server.stop();
}

#[test]
fn a_server_is_reached_by_tls() {
    let dir = temp_dir("certificate-");
    new_certificate(dir.path());
    let postgres = Postgres::start();
    for (from, to) in [("certificate.pem", "server.crt"), ("key.pem", "server.key")] {
        let to = postgres.dir().join("data").join(to);
        fs::copy(dir.path().join(from), &to).unwrap();
        let mut rights = fs::metadata(&to).unwrap().permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut rights, 0o600);
        fs::set_permissions(&to, rights).unwrap();
    }
    postgres.run("ALTER SYSTEM SET ssl = on");
    postgres.run("SELECT pg_reload_conf()");
    wait_for("TLS", Duration::from_secs(10), || (postgres.run("SHOW ssl") == "on").then_some(()));
    let url = format!("{}?sslmode=require", postgres.url().replace("127.0.0.1", "localhost"));
    let launch = Launch::new(&url);
    let refusal = launch.clone().refusal();
    assert!(refusal.contains("PostgreSQL cannot be reached"), "not the certificate's: {refusal}");
    let certificate = dir.path().join("certificate.pem").display().to_string();
    let server = launch.env("SSL_CERT_FILE", &certificate).start();
    assert_eq!(server.visitor().get("/").count(), 1);
    let encrypted = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                     WHERE application_name = 'edge-session'";
    assert_eq!(postgres.run(encrypted), "t");
    server.stop();
}

#[test]
fn a_statement_that_is_too_late_is_canceled_and_its_connection_is_closed() {
    let postgres = Postgres::start();
    let launch = Launch::new(postgres.url()).env("EDGE_SESSION_STORE_TIMEOUT_MS", "200");
    let server = launch.env("EDGE_SESSION_STORE_CONNECTIONS", "2").start();
    let mut visitor = server.visitor();
    assert_eq!(visitor.get("/").count(), 1);
    let lock = "BEGIN; LOCK TABLE session; SELECT pg_sleep(60)";
    let mut locking = Command::new("psql").args(["-Xqc", lock, postgres.url()]).spawn().unwrap();
    let ours = |what: &str| {
        postgres.run(&format!(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'edge-session' {what}"
        ))
    };
    let patience = Duration::from_secs(10);
    wait_for("the lock", patience, || {
        let locks = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted \
                     AND relation = 'session'::regclass";
        (postgres.run(locks) == "1").then_some(())
    });
    for _ in 0..6 {
        assert_eq!(visitor.get("/").status, 503);
    }
    wait_for("no statement to be left", patience, || {
        (ours("AND wait_event_type = 'Lock'") == "0").then_some(())
    });
    wait_for("its connections to be closed", patience, || {
        ours("").parse().is_ok_and(|count: u32| count <= 2).then_some(())
    });
    locking.kill().unwrap();
    locking.wait().unwrap();
    postgres.run("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)%' AND pid <> pg_backend_pid()");
    wait_for("an answer", patience, || {
        let page = visitor.get("/");
        (page.status == 200).then(|| assert_eq!(page.count(), 2))
    });
    server.stop();
}
