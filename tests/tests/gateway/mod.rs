//! `edge-session serve --upstream URL`: a reverse proxy that gives any application sessions.

mod app;
mod back_ends;
mod browser;
mod drain;
mod error_pages;
mod failover;
mod forwarded;
mod guards;
mod http2;
mod limits;
mod queries;
mod session_headers;
mod smuggling;
mod streams;
mod tls;
mod unix_sockets;
mod upstreams;
