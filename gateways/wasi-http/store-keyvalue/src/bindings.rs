//! Imports and exports generated from `wit/`.
#![allow(missing_docs, unsafe_code, unreachable_pub, clippy::all)]

#[cfg(not(feature = "draft2"))]
wit_bindgen::generate!({
    path: ["../../../wit", "../../../wit/middleware"],
    world: "edge:session-middleware/store-keyvalue",
    with: { "edge:session/engine@0.2.0": edge_session_component::wit },
    generate_all,
});

#[cfg(not(feature = "draft2"))]
pub use wasi::keyvalue0_2_0_draft::store as keyvalue;
#[cfg(feature = "draft2")]
pub use wasi::keyvalue0_2_0_draft2::store as keyvalue;

#[cfg(feature = "draft2")]
wit_bindgen::generate!({
    path: ["../../../wit", "../../../wit/middleware"],
    world: "edge:session-middleware/store-keyvalue-draft2",
    with: { "edge:session/engine@0.2.0": edge_session_component::wit },
    generate_all,
});
