//! The allocator of both processes: mimalloc, told to give back what a storm of log-ins has used.
//!
//! By default it commits whole arenas (1 GiB) at once, and then keeps far more resident after a peak. Measured with 15,000
//! idle sessions, mux and imserver together: 4.6 KiB a session with whole arenas, 3.3 KiB without; 64 MiB and 30 MiB before
//! the first log-in; no difference in CPU per message.
#![allow(unsafe_code)] // An option of a C library, set before main.

use libmimalloc_sys::{mi_option_set_default, mi_option_t};

/// `mi_option_arena_eager_commit` of mimalloc.h; the binding has no name for it.
const ARENA_EAGER_COMMIT: mi_option_t = 4;

/// Runs before `main` and before the first allocation: the first arena is reserved with it, and options set later do not
/// change it. `MIMALLOC_ARENA_EAGER_COMMIT` in the environment wins.
pub extern "C" fn configure() {
    // SAFETY: sets one number in a table of mimalloc's; it allocates nothing and runs before other threads exist.
    unsafe { mi_option_set_default(ARENA_EAGER_COMMIT, 0) };
}

/// Makes mimalloc, so configured, the allocator of a binary.
#[macro_export]
macro_rules! allocator {
    () => {
        #[global_allocator]
        static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

        #[allow(unsafe_code)] // Functions in this section run first; ours only sets an option.
        #[used]
        #[unsafe(link_section = ".init_array.00101")]
        static CONFIGURE_ALLOCATOR: extern "C" fn() = $crate::allocator::configure;
    };
}
