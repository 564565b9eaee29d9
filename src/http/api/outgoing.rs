//! URLs in requests: files to download. A worker downloads them; here their text is checked, and
//! what their host resolves to now.

use crate::{
    db::{downloads::NewDownload, tenants::TenantId},
    domain::{codes, file::Purpose, id::FileId, problem::quoted},
    http::api::{error::ApiError, state::AppState},
    outgoing::{Refused, Use, filename},
};

/// A file to download, as a request has it.
pub(crate) struct Source {
    pub url: String,
    /// SHA-256 that the file must have, in hex.
    pub sha256: Option<String>,
    /// The name of the file; by default the last part of the URL's path.
    pub filename: Option<String>,
    pub purpose: Purpose,
}

impl Source {
    /// Checks a source whose URL is at `param` of the request.
    ///
    /// # Errors
    /// Downloads are off; the URL may not be used; the hash is none.
    pub(crate) async fn check(
        self,
        state: &AppState,
        tenant: TenantId,
        param: &str,
    ) -> Result<NewDownload, ApiError> {
        let Self {
            url,
            sha256,
            filename: name,
            purpose,
        } = self;
        if state.outgoing.cached(&url).is_some() {
            let last = url.rsplit('/').next().unwrap_or_default();
            return Ok(NewDownload {
                id: FileId::new(),
                tenant,
                filename: name.unwrap_or_else(|| last.to_owned()),
                purpose,
                sha256: sha256
                    .map(|text| checked_sha256(param, &text))
                    .transpose()?,
                parts: Vec::new(),
                idempotency: None,
                details: "copying from the hub's cache".to_owned(),
                url,
            });
        }
        if !state.outgoing.is_on(Use::Download) {
            let message = "downloads by URL are turned off on this service; upload the file, or have the operator set `--download-hosts`";
            return Err(ApiError::invalid(param, "downloads_off", message));
        }
        let target = state.outgoing.target(&url, Use::Download);
        let target = target.map_err(|refused| explain_refused(param, &refused))?;
        let sha256 = sha256
            .map(|text| checked_sha256(param, &text))
            .transpose()?;
        let checked = state.outgoing.check(&target).await;
        checked.map_err(|refused| explain_refused(param, &refused))?;
        Ok(NewDownload {
            id: FileId::new(),
            tenant,
            filename: name.unwrap_or_else(|| filename(&target)),
            purpose,
            sha256,
            parts: Vec::new(),
            idempotency: None,
            details: format!("downloading from {}", quoted(target.host())),
            url,
        })
    }
}

/// The hash beside the URL at `param`.
fn checked_sha256(param: &str, text: &str) -> Result<String, ApiError> {
    if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(text.to_ascii_lowercase());
    }
    let path = format!("{}sha256", param.strip_suffix("url").unwrap_or_default());
    let message = "must be a SHA-256: 64 hex digits, as `sha256sum` prints it";
    Err(ApiError::invalid(path, codes::INVALID_VALUE, message))
}

/// 429: the tenant has as many downloads under way as it may have.
pub(crate) fn too_many_downloads(limit: u32) -> ApiError {
    let message = format!(
        "{limit} downloads have not ended, which is the limit; wait for one, or delete its file"
    );
    ApiError::too_many("too_many_downloads", message, 30)
}

/// 422: the URL at `param` was refused.
pub(crate) fn explain_refused(param: &str, refused: &Refused) -> ApiError {
    let code = match refused {
        Refused::Malformed(_) | Refused::TooLong => "invalid_url",
        _ => "url_not_allowed",
    };
    ApiError::invalid(param, code, refused.to_string())
}
