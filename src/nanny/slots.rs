//! The descriptors that checks may have open.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Semaphore, SemaphorePermit};

/// Descriptors for checks. A check waits until there are enough; that time is not the server's.
#[derive(Debug)]
pub struct Slots {
    free: Semaphore,
    total: AtomicUsize,
}

impl Slots {
    /// So many descriptors.
    pub fn new(total: usize) -> Self {
        let total = total.min(Semaphore::MAX_PERMITS);
        Slots { free: Semaphore::new(total), total: AtomicUsize::new(total) }
    }

    /// How many there are, free or not.
    pub fn total(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    /// Adds some, so that there are `total`. There are never fewer than before.
    pub fn grow(&self, total: usize) {
        let total = total.min(Semaphore::MAX_PERMITS);
        let former = self.total.fetch_max(total, Ordering::Relaxed);
        self.free.add_permits(total.saturating_sub(former));
    }

    /// Waits for `count` descriptors, first come, first served; they are free again when the value is dropped. More than there are
    /// count as all.
    pub(super) async fn take(&self, count: u32) -> Option<SemaphorePermit<'_>> {
        let count = count.min(u32::try_from(self.total()).unwrap_or(u32::MAX));
        // The semaphore is never closed.
        self.free.acquire_many(count).await.ok()
    }
}
