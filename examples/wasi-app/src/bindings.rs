//! Imports and exports generated from `wasi:http`.
#![allow(missing_docs, unsafe_code, unreachable_pub, clippy::all)]

wit_bindgen::generate!({
    path: ["../../wit", "../../wit/middleware"],
    world: "wasi:http/service@0.3.0",
    generate_all,
});
