//! The data sets that a request names: looked up, checked, and resolved into a recipe once they are
//! validated. Admission and `resolve_waiting` share it, so that a problem reads the same whenever
//! it is found.

use sqlx::PgPool;

use crate::{
    db::{self, files::File, tenants::TenantId},
    domain::{
        file::{FileStatus, Purpose},
        id::FileId,
        problem::Problem,
        request::JobRequest,
        resolve::{self, Data, Resolution, Start},
    },
};

/// The data sets of a job. Each can be used, or its validation has not ended.
#[derive(Debug)]
pub struct DataSets {
    pub training: File,
    pub validation: Option<File>,
}

impl DataSets {
    /// Finds the data sets that `request` names. Adds to `problems` and returns `None` if any
    /// cannot be used.
    pub(super) async fn find(
        pool: &PgPool,
        tenant: TenantId,
        request: &JobRequest,
        problems: &mut Vec<Problem>,
    ) -> sqlx::Result<Option<Self>> {
        let mut find = async |path, id| -> sqlx::Result<Option<File>> {
            let found = check(path, id, db::files::get(pool, tenant, id).await?);
            Ok(found.map_err(|problem| problems.push(problem)).ok())
        };
        let training = find("training_file", request.training_file).await?;
        let validation = match request.validation_file {
            Some(id) => find("validation_file", id).await?.map(Some),
            None => Some(None),
        };
        Ok(training.zip(validation).map(|(training, validation)| Self {
            training,
            validation,
        }))
    }

    /// Resolves `request` for these data sets; `None` while the validation of one has not ended.
    ///
    /// # Errors
    /// Everything in the request that this model or these data cannot do.
    pub(super) fn resolve(
        &self,
        request: &JobRequest,
        start: Start<'_>,
        seed: u64,
    ) -> Result<Option<Resolution>, Vec<Problem>> {
        let validation = self.validation.as_ref().map(|file| &file.dataset);
        let (training, validation) = match (&self.training.dataset, validation) {
            (Some(training), None) => (training, None),
            (Some(training), Some(Some(validation))) => (training, Some(validation)),
            // The layers are known without the data, so a user hears of them now.
            _ => return resolve::check_layers(&request.transfer, start).map(|()| None),
        };
        let data = Data {
            training,
            validation,
        };
        resolve::resolve(request, start, data, seed).map(Some)
    }
}

fn check(path: &str, id: FileId, file: Option<File>) -> Result<File, Problem> {
    let problem = |code, message| Err(Problem::new(path, code, message));
    let Some(file) = file else {
        return problem("unknown_file", format!("there is no file `{id}`"));
    };
    if file.purpose != Purpose::FineTune {
        let message =
            format!("file `{id}` holds weights; upload a data set with purpose `fine-tune`");
        return problem("wrong_purpose", message);
    }
    if file.status == FileStatus::Error {
        let details = file.status_details.unwrap_or_default();
        let message =
            format!("file `{id}` cannot be used: {details}; see `GET /v1/files/{id}/report`");
        return problem("unusable_file", message);
    }
    Ok(file)
}
