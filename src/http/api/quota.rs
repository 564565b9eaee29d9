//! Numbers of things that a tenant may have at the same time: event streams, waiting requests,
//! predictions, uploads, bytes. Counted in this process' memory: each server of an installation
//! counts for itself.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::db::tenants::TenantId;

/// A number of things that all tenants may have, of which each may have a part.
pub(crate) struct Quota {
    limit: u64,
    used: Mutex<Used>,
}

#[derive(Default)]
struct Used {
    total: u64,
    by_tenant: HashMap<TenantId, u64>,
}

/// Which limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    OfTenant,
    OfAll,
}

/// A part of a quota, until it is dropped.
pub(crate) struct Share {
    quota: Arc<Quota>,
    tenant: TenantId,
    taken: AtomicU64,
}

impl Quota {
    /// `limit` is what all tenants may have together.
    pub(crate) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self {
            limit,
            used: Mutex::default(),
        })
    }

    /// A share of nothing, which can grow.
    pub(crate) fn open(self: &Arc<Self>, tenant: TenantId) -> Share {
        Share {
            quota: Arc::clone(self),
            tenant,
            taken: AtomicU64::new(0),
        }
    }

    /// A share of one, where the tenant may have `limit`.
    ///
    /// # Errors
    /// A limit is reached.
    pub(crate) fn take(self: &Arc<Self>, tenant: TenantId, limit: u64) -> Result<Share, Full> {
        let share = self.open(tenant);
        share.grow(1, limit)?;
        Ok(share)
    }

    /// Sum of all shares.
    pub(crate) fn used(&self) -> u64 {
        self.lock().total
    }

    fn lock(&self) -> MutexGuard<'_, Used> {
        // A panic cannot leave counts half changed.
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// Takes `more`, where the tenant may have `limit`.
    ///
    /// # Errors
    /// A limit is reached; nothing was taken.
    pub(crate) fn grow(&self, more: u64, limit: u64) -> Result<(), Full> {
        let mut guard = self.quota.lock();
        let used = &mut *guard;
        let total = used.total.saturating_add(more);
        let of_tenant = used.by_tenant.entry(self.tenant).or_default();
        let own = of_tenant.saturating_add(more);
        let full = if own > limit {
            Full::OfTenant
        } else if total > self.quota.limit {
            Full::OfAll
        } else {
            *of_tenant = own;
            used.total = total;
            self.taken.fetch_add(more, Ordering::Relaxed);
            return Ok(());
        };
        if *of_tenant == 0 {
            used.by_tenant.remove(&self.tenant);
        }
        Err(full)
    }

    /// Size of this share.
    pub(crate) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let taken = self.taken();
        let mut used = self.quota.lock();
        used.total -= taken;
        if let Some(own) = used.by_tenant.get_mut(&self.tenant) {
            *own -= taken;
            if *own == 0 {
                used.by_tenant.remove(&self.tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: TenantId = TenantId(1);
    const B: TenantId = TenantId(2);

    #[test]
    fn one_tenant_leaves_room_for_others() {
        let quota = Quota::new(3);
        let first = quota.take(A, 2).ok().unwrap();
        let second = quota.take(A, 2).ok().unwrap();
        assert_eq!(quota.take(A, 2).err(), Some(Full::OfTenant));
        let _other = quota.take(B, 2).ok().unwrap();
        assert_eq!(quota.take(B, 2).err(), Some(Full::OfAll));
        drop((first, second));
        assert_eq!(quota.used(), 1);
        assert!(quota.take(A, 2).is_ok());
    }

    #[test]
    fn refused_growth_takes_nothing_and_drops_give_all_back() {
        let quota = Quota::new(100);
        let share = quota.open(A);
        assert_eq!(share.grow(60, 80), Ok(()));
        assert_eq!(share.grow(21, 80), Err(Full::OfTenant));
        assert_eq!(share.grow(20, 80), Ok(()));
        assert_eq!(quota.open(B).grow(21, 80), Err(Full::OfAll));
        assert_eq!((share.taken(), quota.used()), (80, 80));
        drop(share);
        assert_eq!(quota.used(), 0);
        assert!(quota.lock().by_tenant.is_empty());
    }
}
