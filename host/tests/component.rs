//! The built `target/session.wasm`: its capabilities, its limits, and calls that fail.
//! `make component` builds it.

use std::path::Path;
use std::sync::Arc;

use edge_session::store::{MemoryStore, Store};
use edge_session::{CodeCache, Component, ComponentError, Options, SessionLayer};
use wasmtime::component::types::ComponentItem;

use crate::support::{self, Gateway, component, component_path, visits};

#[test]
fn a_component_comes_with_the_crate_and_others_are_taken_as_bytes() {
    let component = Component::bundled().unwrap();
    assert_eq!(component.check(&support::options()).unwrap().text("name"), "connect.sid");
    assert!(Component::from_bytes(edge_session::BUNDLED_COMPONENT, None).is_ok());
    let refused = Component::from_bytes(b"\0asm\x01\0\0\0", None).unwrap_err();
    let said = "the input is not a WebAssembly component: it is a core module";
    assert_eq!(refused.to_string(), said);
}

#[test]
fn the_component_imports_a_clock_and_randomness_and_exports_the_engine() {
    let engine = wasmtime::Engine::default();
    let component = wasmtime::component::Component::from_file(&engine, component_path()).unwrap();
    let ty = component.component_type();
    let functions = |item: ComponentItem| match item {
        ComponentItem::ComponentInstance(instance) => {
            let mut names: Vec<_> = instance
                .exports(&engine)
                .filter(|(_, e)| matches!(e.ty, ComponentItem::ComponentFunc(_)))
                .map(|(name, _)| name.to_owned())
                .collect();
            names.sort();
            names
        }
        other => panic!("not an interface: {other:?}"),
    };
    let imports: Vec<_> =
        ty.imports(&engine).map(|(name, i)| (name.to_owned(), functions(i.ty))).collect();
    assert_eq!(
        imports,
        [
            ("wasi:clocks/wall-clock@0.2.0".to_owned(), vec!["now".to_owned()]),
            ("wasi:random/random@0.2.0".to_owned(), vec!["get-random-u64".to_owned()]),
        ]
    );
    let exports: Vec<_> = ty.exports(&engine).map(|(name, _)| name.to_owned()).collect();
    assert_eq!(exports, ["edge:session/engine@0.2.0"]);
}

/// The import list states what the component requires. This test shows that a linker with only
/// these two functions, and nothing else of WASI, suffices to run it.
#[test]
fn two_functions_are_all_that_the_component_needs() {
    let engine = wasmtime::Engine::default();
    let component = wasmtime::component::Component::from_file(&engine, component_path()).unwrap();
    let mut linker = wasmtime::component::Linker::<()>::new(&engine);
    let refused = linker.instantiate_pre(&component).err().unwrap().to_string();
    assert!(refused.contains("wasi:"), "{refused}");
    linker
        .instance("wasi:clocks/wall-clock@0.2.0")
        .unwrap()
        .func_new("now", |_, _, _, results| {
            let (seconds, nanoseconds) =
                (wasmtime::component::Val::U64(0), wasmtime::component::Val::U32(0));
            results[0] = wasmtime::component::Val::Record(vec![
                ("seconds".into(), seconds),
                ("nanoseconds".into(), nanoseconds),
            ]);
            Ok(())
        })
        .unwrap();
    linker
        .instance("wasi:random/random@0.2.0")
        .unwrap()
        .func_wrap("get-random-u64", |_, (): ()| Ok((4_u64,)))
        .unwrap();
    linker.instantiate(wasmtime::Store::new(&engine, ()), &component).unwrap();
}

fn refusal(path: &Path) -> (ComponentError, String) {
    let error = Component::from_file(path, None).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(path.to_str().unwrap()), "{text}");
    (error, text)
}

#[test]
fn a_missing_component_is_named_with_what_makes_it() {
    let (error, text) = refusal(Path::new("/nowhere/session.wasm"));
    assert!(matches!(error, ComponentError::Unreadable { .. }));
    assert!(text.contains("make component"), "{text}");
}

#[test]
fn a_file_that_is_no_component_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.wasm");
    let damaged = b"\0asm\x0d\0\x01\0 and then something else";
    for bytes in [&b"this is text"[..], b"", b"\0asm\x01\0\0\0", damaged] {
        std::fs::write(&path, bytes).unwrap();
        let (error, text) = refusal(&path);
        assert!(matches!(error, ComponentError::NotAComponent { .. }), "{text}");
    }
}

#[test]
fn a_component_of_another_world_is_refused_with_what_was_expected() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.wasm");
    for wat in ["(component)", r#"(component (import "wasi:sockets/tcp@0.2.0" (instance)))"#] {
        std::fs::write(&path, wat::parse_str(wat).unwrap()).unwrap();
        let (error, text) = refusal(&path);
        assert!(matches!(error, ComponentError::OtherWorld { .. }), "{text}");
        assert!(text.contains("edge:session/engine@0.2.0"), "{text}");
    }
}

#[test]
fn a_component_of_another_version_is_refused_with_both_versions() {
    let of = |version: &str| {
        let text = format!(
            "(component (instance $i) (export \"edge:session/engine@{version}\" (instance $i)))"
        );
        Component::from_bytes(&wat::parse_str(text).unwrap(), None).unwrap_err()
    };
    for version in ["0.1.0", "0.3.0"] {
        let error = of(version);
        assert!(matches!(error, ComponentError::OtherVersion { .. }));
        let text = error.to_string();
        assert!(text.contains(&format!("engine@{version}")) && text.contains("engine@0.2.0"));
    }
    assert!(matches!(of("0.2.0"), ComponentError::OtherWorld { .. }));
}

#[test]
fn compiled_code_is_kept_for_the_next_start() {
    let directory = tempfile::tempdir().unwrap();
    let cache = CodeCache::open(directory.path().join("compiled")).unwrap();
    for _ in 0..2 {
        let component = Component::from_file(component_path(), Some(&cache)).unwrap();
        assert_eq!(component.check(&support::options()).unwrap().text("name"), "connect.sid");
    }
}

#[test]
fn all_problems_of_the_options_are_reported_together() {
    let component = component();
    let mut options = Options::default();
    options.set("name", "a b").set("store.ttl", 0).set("cookie.maxAg", 5).set("rolling", "yes");
    let error = component.check(&options).unwrap_err();
    let names: Vec<_> = error.problems.iter().map(|problem| problem.name.as_str()).collect();
    assert_eq!(names, ["cookie.maxAg", "rolling", "secret", "name", "store.ttl"]);
    let message = &error.problems[0].message;
    assert_eq!(message, "is not an option: did you mean cookie.max_age?");
    assert_eq!(error.problems[1].message, "is a string, not true or false");
    assert!(SessionLayer::new(component, options, MemoryStore::default()).is_err());
}

#[tokio::test]
async fn a_call_that_needs_too_much_memory_fails_alone() {
    let store = Arc::new(MemoryStore::with_max_bytes(4 << 30));
    let gateway = Gateway::with(
        component(),
        |o| {
            o.set("max_session_bytes", u32::MAX);
        },
        store.clone(),
    );
    // Passed in and returned, this exceeds the memory limit of an instance.
    let data = format!(r#"{{"cookie":{{}},"a":"{}"}}"#, "x".repeat(100 << 20));
    let content = edge_session::store::Content { data, expires: u64::MAX };
    assert_eq!(store.create("big", content).await.unwrap(), edge_session::store::Created::Done);
    assert_eq!(gateway.get("/", Some(&support::signed("big"))).await.status(), 503);
    assert_eq!(visits(&gateway.get("/", None).await), 1);
}

/// Creates a store with a session of this many bytes, under the identifier in the signed cookie.
async fn with_session(text: &str, bytes: usize) -> Arc<MemoryStore> {
    let store = Arc::new(MemoryStore::with_max_bytes(1 << 30));
    let piece = text.repeat(bytes / text.len());
    let data = format!(r#"{{"cookie":{{}},"a":[0{piece}]}}"#);
    let content = edge_session::store::Content { data, expires: u64::MAX };
    assert_eq!(store.create("big", content).await.unwrap(), edge_session::store::Created::Done);
    store
}

#[tokio::test]
async fn a_session_whose_long_names_have_escapes_is_changed_as_any_other() {
    let gateway = Gateway::new(MemoryStore::default());
    let cookie = support::cookie(&gateway.post("/long-names", None).await);
    for _ in 0..3 {
        assert_eq!(gateway.post("/long-names", Some(&cookie)).await.status(), 200);
    }
}

#[tokio::test]
async fn a_large_session_is_not_worked_on_by_the_thread_that_serves_others() {
    for (bytes, is_large) in [(1000, false), (1 << 19, true)] {
        let gateway = Gateway::with(component(), |_| {}, with_session(",1", bytes).await);
        let cookie = support::signed("big");
        let mut request = std::pin::pin!(gateway.get("/", Some(&cookie)));
        // This store replies at once, so only the component can take time.
        let first =
            std::future::poll_fn(|context| std::task::Poll::Ready(request.as_mut().poll(context)));
        let response = match first.await {
            std::task::Poll::Ready(response) => {
                assert!(!is_large);
                response
            }
            std::task::Poll::Pending => {
                assert!(is_large);
                request.await
            }
        };
        assert_eq!(visits(&response), 1);
        assert_eq!(visits(&gateway.get("/", Some(&cookie)).await), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_as_large_as_they_may_be_are_changed_by_many_at_once() {
    let store = with_session(",[1]", (15 << 20) - 1024).await;
    let configure = |o: &mut Options| {
        o.set("max_session_bytes", 15 << 20);
    };
    let gateway = Arc::new(Gateway::with(component(), configure, store));
    let mut running = tokio::task::JoinSet::new();
    for n in 0..4 {
        let gateway = gateway.clone();
        running.spawn(async move {
            let path = format!("/set/k{n}/{n}");
            gateway.post(&path, Some(&support::signed("big"))).await.status()
        });
    }
    for status in running.join_all().await {
        assert_eq!(status, 200);
    }
}
