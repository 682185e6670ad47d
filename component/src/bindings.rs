//! Types and glue generated from `wit/`.
#![allow(missing_docs, unsafe_code, unreachable_pub, clippy::all)]

wit_bindgen::generate!({
    path: "wit",
    world: "session",
    additional_derives: [PartialEq],
    generate_all,
});
