//! Counts what each thread allocates.
#![expect(unsafe_code, reason = "an allocator's trait is unsafe; see the proof at its implementation")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Counting;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
    static NOW: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

// SAFETY: every method hands its arguments to `System` as they came and returns what `System` returned, so `System`'s
// own guarantees are these. The counters are thread-local cells that need no initialisation and no destructor: touching
// them allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        // SAFETY: the caller's promises are the ones `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        // SAFETY: the caller's promises are the ones `System` asks for.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // Both blocks may be there for a moment.
        add(new_size);
        remove(layout.size());
        // SAFETY: `block` came from `System`, as every block of this allocator did.
        unsafe { System.realloc(block, layout, new_size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        remove(layout.size());
        // SAFETY: `block` came from `System`, as every block of this allocator did.
        unsafe { System.dealloc(block, layout) }
    }
}

fn add(bytes: usize) {
    COUNT.set(COUNT.get() + 1);
    NOW.set(NOW.get() + bytes as isize);
    PEAK.set(PEAK.get().max(NOW.get()));
}

fn remove(bytes: usize) {
    NOW.set(NOW.get() - bytes as isize);
}

/// What a call allocated.
#[derive(Debug)]
pub(crate) struct Allocated {
    /// How often.
    pub count: usize,
    /// The most bytes at once.
    pub peak: usize,
}

/// Runs `work` and says what this thread allocated meanwhile.
pub(crate) fn allocated<T>(work: impl FnOnce() -> T) -> (T, Allocated) {
    let (count, now) = (COUNT.get(), NOW.get());
    PEAK.set(now);
    let done = work();
    (done, Allocated { count: COUNT.get() - count, peak: (PEAK.get() - now) as usize })
}
