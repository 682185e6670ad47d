//! Imports and exports: a handler in front of another one, with access to the store.
#![allow(missing_docs, unsafe_code, unreachable_pub, clippy::all)]

wit_bindgen::generate!({
    path: ["../../wit", "../../wit/middleware"],
    inline: "
        package edge:session-tests;

        world in-between {
            import edge:session/store@0.2.0;
            import wasi:http/handler@0.3.0;
            export wasi:http/handler@0.3.0;
        }
    ",
    world: "edge:session-tests/in-between",
    with: { "edge:session/engine@0.2.0": edge_session_component::wit },
    generate_all,
});
