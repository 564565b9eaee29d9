//! The quotas of a service, and what a client is told that has used one up.

use std::{sync::Arc, time::Duration};

use crate::{
    config::HttpLimits,
    http::api::{
        error::{ApiError, STORAGE_QUOTA},
        identity::Identity,
        quota::{Full, Quota, Share},
    },
};

/// Time after which a client may try again where things end by themselves.
const SOON: Duration = Duration::from_secs(1);
/// The same for what lasts.
const LATER: Duration = Duration::from_secs(5);

pub(crate) struct Quotas {
    pub streams: Arc<Quota>,
    waits: Arc<Quota>,
    predicts: Arc<Quota>,
    uploads: Arc<Quota>,
    reads: Arc<Quota>,
    predict_bytes: Arc<Quota>,
    upload_bytes: Arc<Quota>,
}

impl Quotas {
    pub(crate) fn new(limits: &HttpLimits) -> Self {
        // The number of connections limits what has no limit of its own.
        Self {
            streams: Quota::new(limits.max_streams as u64),
            waits: Quota::new(u64::MAX),
            predicts: Quota::new(u64::MAX),
            uploads: Quota::new(u64::MAX),
            reads: Quota::new(u64::MAX),
            predict_bytes: Quota::new(limits.max_predict_bytes),
            upload_bytes: Quota::new(u64::MAX),
        }
    }

    /// # Errors
    /// 429 or 503: too many event streams are open.
    pub(crate) fn stream(&self, who: &Identity) -> Result<Share, ApiError> {
        let limit = who.limits.max_streams_per_tenant;
        let advice = "list the events instead, or try again";
        let taken = self.streams.take(who.tenant, limit.into());
        taken.map_err(|full| match full {
            Full::OfAll => {
                let message = format!("too many event streams are open; {advice}");
                ApiError::unavailable("too_many_streams", message, 5)
            }
            Full::OfTenant => too_many("open event streams", limit, advice, LATER),
        })
    }

    /// Nothing, when the request does not wait.
    ///
    /// # Errors
    /// 429: too many requests of the tenant wait.
    pub(crate) fn wait(&self, who: &Identity, wait: Duration) -> Result<Option<Share>, ApiError> {
        if wait.is_zero() {
            return Ok(None);
        }
        let limit = who.limits.max_waits_per_tenant;
        let advice = "leave `wait` out, or follow the job's events";
        let taken = self.waits.take(who.tenant, limit.into());
        taken
            .map(Some)
            .map_err(|_| too_many("waiting requests", limit, advice, LATER))
    }

    /// # Errors
    /// 429: too many predictions of the tenant are in progress.
    pub(crate) fn predict(&self, who: &Identity) -> Result<Share, ApiError> {
        let limit = who.limits.max_predicts_per_tenant;
        let advice = "send several images in one request, or try again";
        let taken = self.predicts.take(who.tenant, limit.into());
        taken.map_err(|_| too_many("predictions in progress", limit, advice, SOON))
    }

    /// # Errors
    /// 429: too many uploads of the tenant are in progress.
    pub(crate) fn upload(&self, who: &Identity) -> Result<Share, ApiError> {
        let limit = who.limits.max_uploads_per_tenant;
        let advice = "wait for one to end";
        let taken = self.uploads.take(who.tenant, limit.into());
        taken.map_err(|_| too_many("uploads in progress", limit, advice, LATER))
    }

    /// # Errors
    /// 429: too many contents are being sent to the tenant.
    pub(crate) fn read(&self, who: &Identity) -> Result<Share, ApiError> {
        let limit = who.limits.max_reads_per_tenant;
        let advice = "wait for one to end, or give one up";
        let taken = self.reads.take(who.tenant, limit.into());
        taken.map_err(|_| too_many("downloads in progress", limit, advice, LATER))
    }

    /// Counts the bytes of a prediction's images.
    pub(crate) fn predict_bytes(&self, who: &Identity) -> PredictBytes {
        PredictBytes {
            share: self.predict_bytes.open(who.tenant),
            limit: who.limits.max_predict_bytes_per_tenant,
        }
    }

    /// Counts the bytes of an upload, where the tenant has stored so many already.
    pub(crate) fn upload_bytes(&self, who: &Identity, stored: u64) -> UploadBytes {
        UploadBytes {
            share: self.upload_bytes.open(who.tenant),
            limit: who.limits.max_stored_bytes,
            stored,
        }
    }
}

fn too_many(what: &str, limit: u32, advice: &str, wait: Duration) -> ApiError {
    let message = format!("this tenant has {limit} {what}, which is its limit; {advice}");
    ApiError::rate_limited(message, wait)
}

/// Bytes of a request's images, from their arrival to their prediction.
pub(crate) struct PredictBytes {
    share: Share,
    limit: u64,
}

impl PredictBytes {
    /// # Errors
    /// 413: more than a request may have. 429 or 503: more than there is room for now.
    pub(crate) fn count(&self, more: usize) -> Result<(), ApiError> {
        let (more, limit) = (more as u64, self.limit);
        self.share.grow(more, limit).map_err(|full| match full {
            Full::OfTenant if self.share.taken() + more > limit => {
                let message = format!(
                    "the images of a request may have {limit} bytes; send some in further requests"
                );
                ApiError::too_large("image", message)
            }
            Full::OfTenant => {
                let message = format!(
                    "the images of this tenant's predictions in progress have {limit} bytes, which is its limit; try \
                     again"
                );
                ApiError::rate_limited(message, SOON)
            }
            Full::OfAll => {
                let message = "there is no room for the images of further predictions; try again";
                ApiError::unavailable("predictions_busy", message, 1)
            }
        })
    }
}

/// Bytes of an upload, until it is stored.
pub(crate) struct UploadBytes {
    share: Share,
    limit: u64,
    stored: u64,
}

impl UploadBytes {
    /// # Errors
    /// 429: the tenant would store more than it may.
    pub(crate) fn count(&self, more: usize) -> Result<(), ApiError> {
        let left = self.limit.saturating_sub(self.stored);
        self.share.grow(more as u64, left).map_err(|_| {
            let message = format!(
                "this tenant may store {} bytes of files, and has {}; delete some files first",
                self.limit, self.stored
            );
            let full = ApiError::new(
                axum::http::StatusCode::TOO_MANY_REQUESTS,
                STORAGE_QUOTA,
                message,
            );
            full.retry_after(60)
        })
    }
}
