#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| edge_session_fuzz::ext_proc::message(data));
