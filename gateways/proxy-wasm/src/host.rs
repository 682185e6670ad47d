//! The clock and the randomness of the gateway.

use std::time::UNIX_EPOCH;

use edge_session_component::Environment;
use edge_session_component::wit::Millis;

/// The gateway.
pub(crate) struct Host;

impl Environment for Host {
    fn now(&self) -> Millis {
        let now = proxy_wasm::hostcalls::get_current_time();
        let since = now.ok().and_then(|now| now.duration_since(UNIX_EPOCH).ok());
        since.and_then(|since| u64::try_from(since.as_millis()).ok()).unwrap_or(0)
    }

    fn random(&self) -> [u8; 24] {
        let mut bytes = [0; 24];
        random::fill(&mut bytes);
        bytes
    }
}

mod random {
    #![allow(unsafe_code, reason = "calls the gateway's own function")]

    #[cfg(target_arch = "wasm32")]
    #[link(wasm_import_module = "wasi_snapshot_preview1")]
    unsafe extern "C" {
        fn random_get(buffer: *mut u8, length: usize) -> u16;
    }

    /// Fills the buffer with random bytes. Without them an identifier could be guessed: the module
    /// ends then, and the request fails.
    #[cfg(target_arch = "wasm32")]
    pub(super) fn fill(buffer: &mut [u8]) {
        // SAFETY: the host writes `length` bytes at `buffer`, which has as many.
        let error = unsafe { random_get(buffer.as_mut_ptr(), buffer.len()) };
        assert!(error == 0, "the gateway has no randomness");
    }

    #[cfg(not(target_arch = "wasm32"))]
    pub(super) fn fill(_: &mut [u8]) {
        unreachable!("only gateways run this");
    }
}
