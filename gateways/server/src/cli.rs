//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::net::address::Address;

/// Sessions for web applications, shared with express-session.
///
/// A WebAssembly component contains the rules; this program provides HTTP and a store.
#[derive(Debug, Parser)]
#[command(name = "edge-session", version, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve an application behind sessions, or the built-in view counter.
    ///
    /// The secret that signs cookies is read from the environment, never from the command line:
    ///
    ///   EDGE_SESSION_SECRET       one secret, or several, newest first, separated by commas
    ///   EDGE_SESSION_SECRET_FILE  a file of secrets, newest first, one per line
    ///
    /// A secret has at least 32 bytes; `openssl rand -base64 48` generates one.
    /// EDGE_SESSION_LOG sets the log level: error, warn, info (default) or debug.
    #[command(verbatim_doc_comment)]
    Serve(Serve),

    /// List, show and end the sessions of a store.
    ///
    /// MongoDB, Redis and PostgreSQL are queried directly, as is a file that no process has open.
    /// Otherwise the process that has the sessions is queried: it needs admin.listen in its
    /// configuration and EDGE_SESSION_ADMIN_TOKEN, and this command needs the same values.
    #[command(verbatim_doc_comment)]
    Sessions(Sessions),

    /// Write a commented edge-session.toml as a starting point.
    Init(Init),

    /// Report all problems of a configuration, without serving.
    Check(Check),
}

#[derive(Args, Debug)]
pub(crate) struct Sessions {
    #[command(flatten)]
    pub(crate) configured: Configured,

    #[command(subcommand)]
    pub(crate) command: SessionsCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SessionsCommand {
    /// List live sessions
    List {
        /// List only sessions whose subject (the value at gateway.identity) contains this text
        #[arg(long, value_name = "TEXT")]
        subject: Option<String>,

        /// The maximum number of sessions to list
        #[arg(long, default_value_t = 100, value_name = "N")]
        limit: usize,

        /// Print JSON, for other programs
        #[arg(long)]
        json: bool,
    },
    /// Show the data of a session
    Show {
        /// The session's name, as `list` shows it
        session: String,
    },
    /// End sessions
    End {
        /// The sessions' names, as `list` shows them
        #[arg(required = true)]
        sessions: Vec<String>,
    },
    /// End all sessions of a subject
    EndAll {
        /// The subject: the exact value at gateway.identity
        #[arg(long, value_name = "NAME")]
        subject: String,
    },
}

#[derive(Args, Debug)]
pub(crate) struct Init {
    /// The file to write; an existing file is not overwritten
    #[arg(default_value = "edge-session.toml", value_name = "FILE")]
    pub(crate) file: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct Check {
    #[command(flatten)]
    pub(crate) configured: Configured,

    /// Also check that the store can be read and written
    #[arg(long)]
    pub(crate) connect: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Serve {
    #[command(flatten)]
    pub(crate) configured: Configured,
}

/// What a command needs to know of the configuration.
#[derive(Args, Debug)]
pub(crate) struct Configured {
    /// Where to listen: ADDRESS:PORT, :PORT or unix:FILE [default: 127.0.0.1:8080]
    #[arg(
        long,
        env = "EDGE_SESSION_LISTEN",
        value_name = "ADDR",
        hide_env_values = true,
        global = true
    )]
    pub(crate) listen: Option<Address>,

    /// Where sessions are kept [default: file:data/sessions.redb]
    ///
    ///   memory:              in this process, until it ends
    ///   file:PATH            in a file, used by one process at a time
    ///   mongodb://HOST/DB    in MongoDB, shared with connect-mongo
    ///   redis://HOST         in Redis or Valkey, shared with connect-redis
    ///   postgres://HOST/DB   in PostgreSQL, shared with connect-pg-simple
    #[arg(
        long,
        env = "EDGE_SESSION_STORE",
        value_name = "URL",
        hide_env_values = true,
        global = true
    )]
    #[arg(verbatim_doc_comment)]
    pub(crate) store: Option<String>,

    /// The application to serve, such as http://127.0.0.1:3000; several, separated by commas,
    /// are used in turn [default: the built-in view counter]
    #[arg(
        long,
        env = "EDGE_SESSION_UPSTREAM",
        value_name = "URL",
        hide_env_values = true,
        global = true
    )]
    pub(crate) upstream: Option<String>,

    /// The application as a WebAssembly component that serves wasi:http, instead of --upstream
    #[arg(
        long,
        env = "EDGE_SESSION_APP",
        value_name = "FILE",
        hide_env_values = true,
        global = true
    )]
    pub(crate) app: Option<String>,

    /// The configuration file, in TOML: options of sessions, cookies, the store and the gateway
    #[arg(
        long,
        env = "EDGE_SESSION_CONFIG",
        value_name = "FILE",
        hide_env_values = true,
        global = true
    )]
    pub(crate) config: Option<PathBuf>,

    /// The session component to use instead of the built-in one
    #[arg(
        long,
        env = "EDGE_SESSION_COMPONENT",
        value_name = "FILE",
        hide_env_values = true,
        global = true
    )]
    pub(crate) component: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::{Cli, Command};

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_are_taken_before_and_after_a_subcommand() {
        for arguments in [["--config", "f", "list"], ["list", "--config", "f"]] {
            let all = ["edge-session", "sessions"].into_iter().chain(arguments);
            let Command::Sessions(sessions) = Cli::parse_from(all).command else { panic!() };
            assert_eq!(sessions.configured.config, Some("f".into()), "{arguments:?}");
        }
    }
}
