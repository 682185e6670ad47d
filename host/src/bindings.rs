//! Host side of the contract, generated from `wit/`.
#![allow(missing_docs, unsafe_code, unreachable_pub, clippy::all)]

wasmtime::component::bindgen!({
    path: "wit",
    world: "session",
    additional_derives: [PartialEq],
});
