//! The lease task: renews this origin's leases and its marks as a reader, and ends streams whose owner's lease has lapsed.

use std::sync::atomic::Ordering;

use headwater_protocol::StreamId;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use super::{super::JournalError, Inner, backend::Backend};

/// Renewals in the time of one lease: often enough that one lost answer costs nothing.
const RENEWALS: u32 = 5;

impl<B: Backend> Inner<B> {
    pub(super) async fn hold_leases(&self) {
        let mut renewals = self.renewals();
        let mut patience = self.patience();
        loop {
            renewals.tick().await;
            self.replays.expire();
            let answered = self.renew_all().await;
            let was_healthy = self.healthy.swap(answered.is_ok(), Ordering::Relaxed);
            let Err(error) = answered else {
                if !was_healthy {
                    tracing::info!("the shared journal answers again");
                }
                patience = self.patience();
                continue;
            };
            if was_healthy {
                tracing::error!(%error, "leases can't be renewed");
            }
            // The follower may still read, but nobody can tell whether an owner lives.
            self.fail_followed_after(patience);
        }
    }

    async fn renew_all(&self) -> Result<(), JournalError> {
        let (renewed, watched) = tokio::join!(self.renew(), self.watch());
        if !(renewed? | watched?) {
            // Nothing had to be sent.
            self.backend.ping().await?;
        }
        Ok(())
    }

    /// Renews the leases of what is written here, and learns who reads it elsewhere. Returns whether there was anything.
    async fn renew(&self) -> Result<bool, JournalError> {
        let written = self.registry.written();
        if written.is_empty() {
            return Ok(false);
        }
        let asked = Instant::now();
        let read = self.backend.renew(&written).await?;
        for ((id, _), read) in written.iter().zip(read) {
            self.registry.read_elsewhere(id, read, asked);
        }
        Ok(true)
    }

    /// Tells the owners of what is read here that it is, and ends what has no owner any more. Returns whether there was
    /// anything.
    async fn watch(&self) -> Result<bool, JournalError> {
        let followed = self.registry.followed();
        if followed.is_empty() {
            return Ok(false);
        }
        let ids: Vec<StreamId> = followed.iter().map(|stream| stream.id().clone()).collect();
        let owned = self.backend.mark_read(&ids).await?;
        for (stream, owned) in followed.iter().zip(owned) {
            if !owned {
                self.interrupt(stream).await?;
            }
        }
        Ok(true)
    }

    /// Frees the keys of starts that were never answered. Where that fails it says nothing of leases, and is repeated.
    pub(super) async fn free_keys(&self) {
        let mut attempts = self.renewals();
        loop {
            attempts.tick().await;
            for key in self.registry.unconfirmed_keys() {
                if self.free(&key).await.is_err() {
                    break;
                }
            }
        }
    }

    /// The times at which leases are renewed.
    fn renewals(&self) -> Interval {
        let mut renewals = interval(self.lease / RENEWALS);
        renewals.set_missed_tick_behavior(MissedTickBehavior::Delay);
        renewals
    }
}
