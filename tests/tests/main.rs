//! Black-box tests of the built `edge-session` binary. `make test` builds and fetches what they need.

mod bad_cookies;
mod browser;
mod cache;
mod check;
mod concurrency;
mod conformance;
mod counter;
mod crashes;
mod damaged_documents;
mod deploy;
mod embedding;
mod gateway;
mod gateways;
mod interop;
mod login;
mod middleware;
mod operation;
mod outages;
mod postgres;
mod redis;
mod refusals;
mod start;
mod wasmcloud;
mod with_express;
