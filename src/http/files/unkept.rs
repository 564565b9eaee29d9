//! Objects that nobody may ever name: deleted unless they are kept.

use crate::objects::Objects;

/// Objects below a prefix that are deleted when this is dropped before `keep`.
pub(crate) struct Unkept(Option<(Objects, String)>);

impl Unkept {
    pub(crate) fn new(objects: &Objects, prefix: String) -> Self {
        Self(Some((objects.clone(), prefix)))
    }

    pub(crate) fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Unkept {
    fn drop(&mut self) {
        let Some((objects, prefix)) = self.0.take() else {
            return;
        };
        tokio::spawn(async move {
            if let Err(error) = objects.delete_prefix(&prefix).await {
                tracing::warn!("cannot delete a failed upload at `{prefix}`: {error}");
            }
        });
    }
}
