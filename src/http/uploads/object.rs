//! The upload object and its parts, as OpenAI's.

use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    db::{
        self,
        files::File,
        tenants::TenantId,
        uploads::{Part, Upload},
    },
    domain::{
        file::{Purpose, UploadStatus},
        id::{PartId, UploadId},
    },
    http::api::state::AppState,
};

/// An upload in parts.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UploadObject {
    pub id: UploadId,
    /// `upload`.
    pub object: &'static str,
    /// Size of the whole file.
    pub bytes: u64,
    /// Unix seconds.
    pub created_at: i64,
    pub filename: String,
    pub purpose: Purpose,
    pub status: UploadStatus,
    /// Time at which it ends unless it is completed.
    pub expires_at: i64,
    /// The file that it became, unless that is deleted.
    pub file: Option<File>,
}

impl UploadObject {
    /// The object of an upload that became `file`.
    pub(crate) fn new(upload: Upload, file: Option<File>) -> Self {
        Self {
            id: upload.id,
            object: "upload",
            bytes: upload.bytes,
            created_at: upload.created_at.unix_timestamp(),
            filename: upload.filename,
            purpose: upload.purpose,
            status: upload.status,
            expires_at: upload.expires_at.unix_timestamp(),
            file,
        }
    }

    /// The object of an upload, with its file if it became one.
    ///
    /// # Errors
    /// The database cannot be read.
    pub(crate) async fn of(
        state: &AppState,
        tenant: TenantId,
        upload: Upload,
    ) -> sqlx::Result<Self> {
        let file = match upload.file {
            Some(id) => db::files::get(&state.pool, tenant, id).await?,
            None => None,
        };
        Ok(Self::new(upload, file))
    }
}

/// A part of an upload.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PartObject {
    pub id: PartId,
    /// `upload.part`.
    pub object: &'static str,
    /// Unix seconds.
    pub created_at: i64,
    pub upload_id: UploadId,
    pub bytes: u64,
    /// SHA-256 of the part, lower-case hex.
    pub sha256: String,
}

impl From<Part> for PartObject {
    fn from(part: Part) -> Self {
        Self {
            id: part.id,
            object: "upload.part",
            created_at: part.created_at.unix_timestamp(),
            upload_id: part.upload,
            bytes: part.bytes,
            sha256: part.sha256,
        }
    }
}
