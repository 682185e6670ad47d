//! `edge-session check`: the checks that `serve` makes at start, without serving.

use std::path::Path;

use anyhow::{anyhow, bail};
use edge_session::store::{MongoStore, PostgresStore, RedisStore};
use edge_session::{Problem, SessionLayer};

use crate::net::tls::Tls;
use crate::proxy::{self, App};
use crate::setup::{Setup, is_mongodb, is_postgres, is_redis, without_secrets};

/// Checks the configuration. Returns lines to print, or why it cannot work. With `connect`, checks
/// the store, too.
pub(crate) async fn run(setup: &Setup, connect: bool) -> anyhow::Result<String> {
    let mut problems = Vec::new();
    let mut problem = |name: &str, message: String| {
        problems.push(Problem { name: name.to_owned(), message });
    };
    if let Err(why) = setup.settings.tls.clone().map(Tls::load).transpose() {
        problem("tls", why.to_string());
    }
    if let Some(settings) = &setup.settings.gateway {
        if let Err(why) = proxy::error_pages(settings) {
            problem("gateway.error_pages", why.to_string());
        }
        let app = settings.app.as_ref().map(|app| App::load(app, settings.timeouts.response));
        if let Some(Err(why)) = app {
            problem("app", format!("{why:#}"));
        }
    }
    let mut found = String::new();
    let url = &setup.store_url;
    let failed =
        |error: &dyn std::fmt::Display| format!("the store {}: {error}", without_secrets(url));
    // Other addresses are resolved by DNS.
    if url.starts_with("mongodb://") || (connect && is_mongodb(url)) {
        match MongoStore::check_address(url).await {
            Err(error) => problem("store.url", failed(&error)),
            Ok(without_effect) if without_effect.is_empty() => {}
            Ok(without_effect) => {
                let names = without_effect.join(", ");
                found += &format!(
                    "\n  warning   these options of the store's address have no effect: {names}"
                );
            }
        }
    }
    let checked = match url {
        url if is_redis(url) => RedisStore::check_address(url),
        url if is_postgres(url) => PostgresStore::check_address(url),
        _ => Ok(()),
    };
    if let Err(error) = checked {
        problem("store.url", failed(&error));
    }
    if !problems.is_empty() {
        bail!(setup.tell(&problems));
    }
    let missing = url.strip_prefix("file:").filter(|path| !Path::new(path).exists());
    if let Some(path) = missing.filter(|_| connect) {
        // Opening it would create the file, possibly with another owner than the user who serves.
        found += &format!("\n  the store's file {path} does not exist yet: `serve` creates it");
    } else if connect {
        let stores = setup.open_store().await?;
        let (component, options) = (setup.component.clone(), setup.options.clone());
        let layer = SessionLayer::with_deadline(
            component,
            options,
            stores.store,
            setup.settings.mongodb.timeout,
        );
        let layer = layer?;
        layer.check_store().await.map_err(|why| anyhow!(failed(&why)))?;
        found += "\n  the store responds: sessions can be read and written";
    }
    Ok(found)
}
