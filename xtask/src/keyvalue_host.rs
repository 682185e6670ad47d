//! Links `store-keyvalue-draft2.wasm` to a host of the second draft of `wasi:keyvalue`, whose types
//! are written out here, and uses it. No program with that draft can be installed by the tests.

use std::collections::HashMap;

use wasmtime::component::{
    Component, ComponentType, Func, Instance, Lift, Linker, Lower, Resource, ResourceType,
};
use wasmtime::{Config, Engine, Store};

use crate::tests::built;

/// The host: its only bucket, and its clock in seconds.
#[derive(Default)]
struct Host {
    bucket: HashMap<String, Vec<u8>>,
    now: i64,
}

struct Bucket;

#[derive(ComponentType, Lower, Lift)]
#[component(variant)]
enum KeyValueError {
    #[component(name = "no-such-store")]
    NoSuchStore,
    #[component(name = "access-denied")]
    AccessDenied,
    #[component(name = "other")]
    Other(String),
}

#[derive(ComponentType, Lower, Lift)]
#[component(record)]
struct Instant {
    seconds: i64,
    nanoseconds: u32,
}

#[derive(ComponentType, Lower, Lift)]
#[component(record)]
struct Content {
    data: String,
    expires: u64,
}

#[derive(ComponentType, Lower, Lift, Debug, PartialEq)]
#[component(record)]
struct Stored {
    data: String,
    expires: Option<u64>,
    touched: Option<u64>,
}

#[derive(ComponentType, Lower, Lift, Debug, PartialEq)]
#[component(variant)]
enum StoreError {
    #[component(name = "refused")]
    Refused(String),
    #[component(name = "unavailable")]
    Unavailable(String),
}

#[derive(ComponentType, Lower, Lift, Clone, Copy, Debug, PartialEq)]
#[component(enum)]
#[repr(u8)]
enum Created {
    #[component(name = "done")]
    Done,
    #[component(name = "taken")]
    Taken,
}

#[derive(ComponentType, Lower, Lift, Debug, PartialEq)]
#[component(variant)]
enum Changed {
    #[component(name = "done")]
    Done,
    #[component(name = "missing")]
    Missing,
    #[component(name = "conflict")]
    Conflict(Stored),
}

/// A host that has the buckets of these names.
fn linker(engine: &Engine, names: &'static [&'static str]) -> Linker<Host> {
    type Is<T> = wasmtime::Result<(Result<T, KeyValueError>,)>;
    let mut linker = Linker::<Host>::new(engine);
    let mut clock = linker.instance("wasi:clocks/system-clock@0.3.0").unwrap();
    clock
        .func_wrap("now", |store, ()| Ok((Instant { seconds: store.data().now, nanoseconds: 0 },)))
        .unwrap();
    let mut keys = linker.instance("wasi:keyvalue/store@0.2.0-draft2").unwrap();
    keys.resource("bucket", ResourceType::host::<Bucket>(), |_, _| Ok(())).unwrap();
    keys.func_wrap("open", |_, (name,): (String,)| -> Is<Resource<Bucket>> {
        Ok((match names.contains(&&*name) {
            true => Ok(Resource::new_own(0)),
            false => Err(KeyValueError::NoSuchStore),
        },))
    })
    .unwrap();
    keys.func_wrap(
        "[method]bucket.get",
        |store, (_, key): (Resource<Bucket>, String)| -> Is<Option<Vec<u8>>> {
            Ok((Ok(store.data().bucket.get(&key).cloned()),))
        },
    )
    .unwrap();
    keys.func_wrap(
        "[method]bucket.set",
        |mut store, (_, key, value): (Resource<Bucket>, String, Vec<u8>)| -> Is<()> {
            store.data_mut().bucket.insert(key, value);
            Ok((Ok(()),))
        },
    )
    .unwrap();
    keys.func_wrap(
        "[method]bucket.delete",
        |mut store, (_, key): (Resource<Bucket>, String)| -> Is<()> {
            store.data_mut().bucket.remove(&key);
            Ok((Ok(()),))
        },
    )
    .unwrap();
    linker
}

/// The component in a host that has the buckets of these names.
async fn start(names: &'static [&'static str]) -> (Store<Host>, Instance) {
    let mut config = Config::new();
    config.wasm_component_model_async(true);
    let engine = Engine::new(&config).unwrap();
    let component = Component::from_file(&engine, built("store-keyvalue-draft2.wasm")).unwrap();
    let mut store = Store::new(&engine, Host::default());
    let instance = linker(&engine, names).instantiate_async(&mut store, &component).await.unwrap();
    (store, instance)
}

/// A function of `edge:session/store`.
fn function(store: &mut Store<Host>, instance: &Instance, name: &str) -> Func {
    let interface = instance.get_export_index(&mut *store, None, "edge:session/store@0.2.0");
    let index = instance.get_export_index(&mut *store, interface.as_ref(), name).unwrap();
    instance.get_func(store, index).unwrap()
}

macro_rules! call {
    ($store:ident, $instance:ident, $name:literal, $arguments:expr => $result:ty) => {{
        let function = function(&mut $store, &$instance, $name);
        let function = function.typed::<_, (Result<$result, StoreError>,)>(&$store).unwrap();
        function.call_async(&mut $store, $arguments).await.unwrap().0
    }};
}

#[tokio::test]
async fn the_store_links_to_the_second_draft_of_keyvalue_and_keeps_sessions() {
    let (mut store, instance) = start(&["default"]).await;
    let id = || "a".to_owned();
    let content = |data: &str| Content { data: data.to_owned(), expires: 5_000 };
    let kept =
        |data: &str| Stored { data: data.to_owned(), expires: Some(5_000), touched: Some(1_000) };
    store.data_mut().now = 1;
    assert_eq!(call!(store, instance, "load", (id(),) => Option<Stored>), Ok(None));
    let created = call!(store, instance, "create", (id(), content("{}")) => Created);
    assert_eq!(created, Ok(Created::Done));
    let created = call!(store, instance, "create", (id(), content("{}")) => Created);
    assert_eq!(created, Ok(Created::Taken));
    let replace = |expected: &str| (id(), content("[]"), Some(expected.to_owned()));
    let changed = call!(store, instance, "replace", replace("x") => Changed);
    assert_eq!(changed, Ok(Changed::Conflict(kept("{}"))));
    let changed = call!(store, instance, "replace", replace("{}") => Changed);
    assert_eq!(changed, Ok(Changed::Done));
    let loaded = call!(store, instance, "load", (id(),) => Option<Stored>);
    assert_eq!(loaded, Ok(Some(kept("[]"))));
    store.data_mut().now = 5;
    assert_eq!(call!(store, instance, "touch", (id(), 9_000_u64) => Changed), Ok(Changed::Missing));
    assert!(store.data().bucket.is_empty(), "what has expired is deleted");
}

#[tokio::test]
async fn without_a_bucket_the_store_says_what_to_configure() {
    let (mut store, instance) = start(&[]).await;
    let loaded = call!(store, instance, "load", ("a".to_owned(),) => Option<Stored>);
    let why = "wasi:keyvalue has neither of the buckets [\"default\", \"\"]: configure one";
    assert_eq!(loaded, Err(StoreError::Unavailable(why.to_owned())));
}
