//! A folder with a model, as `save_pretrained` of transformers and `save_for_hf` of timm leave one,
//! and as a clone of a hub's repository is one: described as the service describes a repository,
//! and its weights uploaded.

use std::{fs, path::Path};

use anyhow::Context as _;
use serde_json::{Value, json};

use super::{
    api::{self, Api},
    pack::Folder,
    upload::{HubPart, send_folder, upload},
};
use crate::{
    domain::{
        file::UploadPurpose,
        repository::{
            CARD, CONFIG, MAX_FILES, PREPROCESSOR, WeightsFiles, describe, license, shards,
            weights_files,
        },
    },
    exit::Exit,
};

/// Uploads the weights of a folder, and returns the body that registers them as a base model.
///
/// # Errors
/// The folder has no model, cannot be read, or the service refuses the upload.
pub(super) async fn upload_model(api: &Api, folder: &Path) -> anyhow::Result<Value> {
    let unfit = |reason: String| Exit::Refused.error(format!("`{}` {reason}", folder.display()));
    let has = |name: &str| folder.join(name).is_file();
    if !has(CONFIG) {
        return Err(unfit(format!(
            "has no `{CONFIG}`; give a folder that timm or transformers saved a model to"
        )));
    }
    let weights = weights_files(has).map_err(unfit)?;
    let config = read(folder, CONFIG)?;
    let preprocessor = has(PREPROCESSOR).then(|| read(folder, PREPROCESSOR));
    let preprocessor = preprocessor.transpose()?;
    let described = describe(&config, preprocessor.as_ref()).map_err(unfit)?;
    let name = folder.canonicalize().unwrap_or_default();
    let name = name.file_name().unwrap_or_default().to_string_lossy();
    let purpose = UploadPurpose::Weights;
    let file = match weights {
        WeightsFiles::Single(weights) => {
            upload(api, &folder.join(weights), purpose, HubPart::default()).await?
        }
        WeightsFiles::Several(index) => {
            let index = read(folder, index)?;
            let names = shards(&index, MAX_FILES, has).map_err(unfit)?;
            let files = Folder::of(folder, &names)?;
            send_folder(api, files, format!("{name}.tar"), purpose).await?
        }
    };
    let card = fs::read_to_string(folder.join(CARD)).unwrap_or_default();
    Ok(json!({
        "id": name,
        "architecture": described.architecture,
        "weights": {"file": api::id_of(&file)?},
        "source_task": described.source_task,
        "preprocessing": described.preprocessing,
        "license": license(&card).or(described.license),
    }))
}

fn read(folder: &Path, name: &str) -> anyhow::Result<Value> {
    let path = folder.join(name);
    let failed = || format!("cannot read `{}`", path.display());
    let text = fs::read(&path).with_context(failed)?;
    serde_json::from_slice(&text).with_context(failed)
}
