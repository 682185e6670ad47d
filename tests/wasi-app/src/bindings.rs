//! Imports and exports: an application with a clock.
#![allow(missing_docs, unsafe_code, unreachable_pub, clippy::all)]

wit_bindgen::generate!({
    path: ["../../wit", "../../wit/middleware"],
    inline: "
        package edge:session-tests;

        world app {
            import wasi:clocks/monotonic-clock@0.3.0;
            export wasi:http/handler@0.3.0;
        }
    ",
    world: "edge:session-tests/app",
    generate_all,
});
