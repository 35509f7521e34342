//! jemalloc as the allocator of the whole process, libtorch's tensors included.
//!
//! glibc hands large blocks back to the kernel at once, and a training step then spends a tenth of its time on fresh pages.

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// What jemalloc reads when it starts: large blocks are kept like others, and idle pages go back after half a second, also
/// where nothing is asked for meanwhile.
// SAFETY: jemalloc declares `const char *malloc_conf`, and a reference to an array is such a pointer, here to a C string.
#[unsafe(export_name = "malloc_conf")]
pub static MALLOC_CONF: &[u8; 80] =
    b"oversize_threshold:0,background_thread:true,dirty_decay_ms:500,muzzy_decay_ms:0\0";
