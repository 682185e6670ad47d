//! The memory allocator.
//!
//! Every request makes dozens of small allocations, which another thread often frees: mimalloc is
//! made for that. By default, it keeps free memory until it is called for something else, so that a
//! process whose clients have left would stay as large as it ever was.

use std::cell::Cell;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The option `mi_option_purge_delay`, which libmimalloc-sys does not name.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// How often a thread looks for memory that others have freed. Looking takes microseconds.
const INTERVAL: Duration = Duration::from_millis(100);

/// Lets mimalloc return memory to the system as soon as it is free. Called before threads start.
#[allow(unsafe_code, reason = "libmimalloc-sys has no safe interface")]
pub(crate) fn return_free_memory() {
    // SAFETY: it stores a number in mimalloc's table of options, within its bounds.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, 0) }
}

/// Takes back the memory of this thread that other threads have freed. Called when a thread has
/// nothing else to do.
#[allow(unsafe_code, reason = "libmimalloc-sys has no safe interface")]
pub(crate) fn collect() {
    thread_local!(static LAST: Cell<Option<Instant>> = const { Cell::new(None) });
    let now = Instant::now();
    if LAST.get().is_none_or(|last| now - last >= INTERVAL) {
        LAST.set(Some(now));
        // SAFETY: it concerns only blocks that are free.
        unsafe { libmimalloc_sys::mi_collect(false) }
    }
}
