//! Counts allocations while somebody asks for it.
//!
//! The counter is off in every other measurement; what is left then is one relaxed load of a flag that nobody writes,
//! the same for both sides of a comparison.
#![expect(unsafe_code, reason = "an allocator's trait is unsafe; see the proof at its implementation")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static ON: AtomicBool = AtomicBool::new(false);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

struct Counting;

// SAFETY: every method hands its arguments to `System` as they came and returns what `System` returned, so `System`'s
// own guarantees are these. Counting touches two statics and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are the ones `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are the ones `System` asks for.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count();
        // SAFETY: `block` came from `System`, as every block of this allocator did.
        unsafe { System.realloc(block, layout, new_size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: `block` came from `System`, as every block of this allocator did.
        unsafe { System.dealloc(block, layout) }
    }
}

fn count() {
    if ON.load(Ordering::Relaxed) {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
    }
}

/// How many allocations the whole process makes while `future` runs.
pub(crate) async fn allocations_of(future: impl Future) -> u64 {
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    ON.store(true, Ordering::SeqCst);
    future.await;
    ON.store(false, Ordering::SeqCst);
    ALLOCATIONS.load(Ordering::Relaxed) - before
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn allocations_are_counted_while_it_is_on() {
        let counted = allocations_of(async {
            for number in 0..1000 {
                drop(std::hint::black_box(Box::new(number)));
            }
        })
        .await;
        // Other tests of the process may allocate meanwhile.
        assert!(counted >= 1000, "{counted}");
    }
}
