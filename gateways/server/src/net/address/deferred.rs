//! `TCP_DEFER_ACCEPT`, for which rustix and socket2 have no function.

use std::ffi::c_int;
use std::os::fd::{AsFd, AsRawFd as _};

/// How long a connection may stay with the system without having sent anything, in seconds. Apache
/// and nginx (`deferred`) use 1 second, after which the connections of a client that opens many at a
/// time arrive at once.
const SECONDS: c_int = 3;

/// Lets the system keep a new connection until its client has sent something, or for about 3
/// seconds: an HTTP client always speaks first. Silent connections then need no place and no memory
/// here, and there is no work to accept them and to close them.
///
/// A system without the option, such as a sandbox's, accepts them at once.
#[allow(unsafe_code, reason = "the option has no safe interface")]
pub(super) fn defer_accept(listener: &impl AsFd, defers: bool) {
    let seconds = if defers { SECONDS } else { 0 };
    // SAFETY: the descriptor is open while it is borrowed, and the system copies the option's value,
    // which has the size that is given, during the call.
    unsafe {
        libc::setsockopt(
            listener.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            std::ptr::from_ref(&seconds).cast(),
            size_of_val(&seconds) as libc::socklen_t,
        );
    }
}
