//! Admission: a slot for a running generation, or a place in the queue for one.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A slot for a running generation, or a place in the queue for one.
pub(crate) enum Slot {
    Held(OwnedSemaphorePermit),
    Queued { slots: Arc<Semaphore>, place: OwnedSemaphorePermit },
}

impl Slot {
    /// Waits for the slot, which is free again when the permit is dropped. `None` only where the semaphore is closed,
    /// which the hub never does.
    pub(crate) async fn acquire(self) -> Option<OwnedSemaphorePermit> {
        match self {
            Self::Held(permit) => Some(permit),
            Self::Queued { slots, place } => {
                let permit = slots.acquire_owned().await.ok();
                drop(place);
                permit
            }
        }
    }
}
