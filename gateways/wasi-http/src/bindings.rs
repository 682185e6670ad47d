//! Imports and exports generated from `wit/`. The types of `engine` are those of the linked
//! component.
#![allow(missing_docs, unsafe_code, unreachable_pub, clippy::all)]

wit_bindgen::generate!({
    path: ["../../wit", "../../wit/middleware"],
    world: "edge:session-middleware/middleware",
    with: { "edge:session/engine@0.2.0": edge_session_component::wit },
    generate_all,
});
