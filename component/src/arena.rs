//! The component's allocator: a call's memory is released as soon as the call has ended.
//!
//! A call into the component makes a few dozen small allocations and frees them all before the next
//! call. A bump allocator that resets when nothing is in use costs a fraction of a general
//! allocator.
//!
//! [`keep`] protects what outlives calls (an open engine).
//!
//! # Safety
//!
//! Memory is handed out once, from `next` upwards, and is not reused until everything handed out
//! since [`keep`] has been freed, which `in_use` counts. The one exception, releasing the last
//! allocation, moves `next` back to the start of that allocation. WebAssembly without the threads
//! proposal is single-threaded, so `Cell`s suffice.

#![allow(unsafe_code, reason = "a global allocator is unsafe to implement")]

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;

/// The page size of WebAssembly memory, in bytes.
const PAGE: usize = 1 << 16;

/// No memory is handed out beyond this address, so address arithmetic cannot overflow.
const MOST: usize = 1 << 31;

struct Arena {
    /// The start of the next allocation. 0 before the first one.
    next: Cell<usize>,
    /// The end of the memory allocated from the host.
    end: Cell<usize>,
    /// Everything below is kept forever.
    floor: Cell<usize>,
    /// The number of live allocations at or above `floor`.
    in_use: Cell<usize>,
}

// SAFETY: single-threaded, see above.
unsafe impl Sync for Arena {}

#[global_allocator]
static ARENA: Arena =
    Arena { next: Cell::new(0), end: Cell::new(0), floor: Cell::new(0), in_use: Cell::new(0) };

/// Keeps everything allocated so far forever.
pub(crate) fn keep() {
    ARENA.floor.set(ARENA.next.get());
    ARENA.in_use.set(0);
}

impl Arena {
    /// Ensures that memory up to `needed` exists.
    fn reach(&self, needed: usize) -> bool {
        if needed > MOST {
            return false;
        }
        if needed <= self.end.get() {
            return true;
        }
        let pages = (needed - self.end.get()).div_ceil(PAGE);
        // Grow by several pages, so that growing is rare.
        let grown = core::arch::wasm32::memory_grow(0, pages.max(4));
        if grown == usize::MAX {
            return false;
        }
        if self.next.get() == 0 {
            // The heap starts where the linker's memory ends.
            self.next.set(grown * PAGE);
            self.floor.set(grown * PAGE);
        }
        self.end.set((grown + pages.max(4)) * PAGE);
        true
    }
}

// SAFETY: see the module's documentation.
unsafe impl GlobalAlloc for Arena {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if self.next.get() == 0 && !self.reach(self.end.get() + 1) {
            return std::ptr::null_mut();
        }
        let begin = self.next.get().next_multiple_of(layout.align());
        // `next` is at most MOST, and a layout's size at most isize::MAX.
        let end = begin + layout.size();
        if !self.reach(end) {
            return std::ptr::null_mut();
        }
        self.next.set(end);
        self.in_use.set(self.in_use.get() + 1);
        begin as *mut u8
    }

    #[inline]
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        let begin = pointer as usize;
        if begin < self.floor.get() {
            return;
        }
        self.in_use.set(self.in_use.get() - 1);
        if self.in_use.get() == 0 {
            self.next.set(self.floor.get());
        } else if begin + layout.size() == self.next.get() {
            self.next.set(begin);
        }
    }

    #[inline]
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let begin = pointer as usize;
        let is_last = begin >= self.floor.get() && begin + layout.size() == self.next.get();
        if is_last && size > 0 {
            let end = begin + size;
            if !self.reach(end) {
                return std::ptr::null_mut();
            }
            self.next.set(end);
            return pointer;
        }
        // SAFETY: the caller promises a valid layout for `size`, and a live `pointer` of
        // `layout`; the new memory does not overlap it.
        unsafe {
            let new = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !new.is_null() {
                std::ptr::copy_nonoverlapping(pointer, new, size.min(layout.size()));
                self.dealloc(pointer, layout);
            }
            new
        }
    }
}
