//! Imports and exports generated from `wit/`.
#![allow(missing_docs, unsafe_code, unreachable_pub, clippy::all)]

wit_bindgen::generate!({
    path: ["../../../wit", "../../../wit/middleware"],
    world: "edge:session-middleware/store-wasmcloud",
    with: { "edge:session/engine@0.2.0": edge_session_component::wit },
    generate_all,
});
