//! Admission: a slot for a running generation, or a place in the queue for one.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A place among the running generations, or in the queue for one.
pub(crate) enum Slot {
    Held(OwnedSemaphorePermit),
    Queued { slots: Arc<Semaphore>, place: OwnedSemaphorePermit },
}

impl Slot {
    /// Waits for the place; it is free again when the permit is dropped. `None` only where places are no
    /// longer given out, which this hub never does.
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
