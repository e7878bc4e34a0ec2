//! The lease task: renews this process's leases and reader marks, and ends streams whose owner's lease has lapsed.

use std::sync::atomic::Ordering;

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{super::JournalError, Inner};

/// How often in a lease: often enough that one lost answer costs nothing.
const LOOKS: u32 = 5;

impl Inner {
    pub(super) async fn keep(&self) {
        let mut looks = interval(self.lease / LOOKS);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut patience = self.patience();
        loop {
            looks.tick().await;
            let (answered, renewed, watched) = (self.store.ping().await, self.renew().await, self.watch().await);
            let looked = answered.map_err(JournalError::from).and(renewed).and(watched);
            let was_healthy = self.healthy.swap(looked.is_ok(), Ordering::Relaxed);
            let Err(error) = looked else {
                if !was_healthy {
                    tracing::info!("redis answers again");
                }
                patience = self.patience();
                continue;
            };
            if was_healthy {
                tracing::error!(%error, "leases can't be renewed");
            }
            // The follower may still read, but nobody can tell whether an owner lives.
            if Instant::now() >= patience {
                self.registry.all_followed().iter().for_each(|stream| stream.fail_locally());
            }
        }
    }

    /// Renews the leases of what is written here, and learns who reads it elsewhere.
    async fn renew(&self) -> Result<(), JournalError> {
        let written = self.registry.all_written();
        let asked = Instant::now();
        let read = self.store.renew(&written).await?;
        for ((id, _), read) in written.iter().zip(read) {
            self.registry.elsewhere(id, read, asked);
        }
        Ok(())
    }

    /// Tells the owners of what is read here that it is, and ends what has no owner any more.
    async fn watch(&self) -> Result<(), JournalError> {
        let followed = self.registry.all_followed();
        let owned = self.store.watch(&followed).await?;
        for (stream, owned) in followed.iter().zip(owned) {
            if !owned {
                self.interrupt(stream).await?;
            }
        }
        Ok(())
    }
}
