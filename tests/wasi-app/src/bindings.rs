//! Imports and exports: an application that also looks into the store.
#![allow(missing_docs, unsafe_code, unreachable_pub, clippy::all)]

wit_bindgen::generate!({
    path: ["../../wit", "../../wit/middleware"],
    inline: "
        package edge:session-tests;

        world app {
            import edge:session/store@0.1.0;
            export wasi:http/handler@0.3.0;
        }
    ",
    world: "edge:session-tests/app",
    with: { "edge:session/engine@0.1.0": edge_session_component::wit },
    generate_all,
});
