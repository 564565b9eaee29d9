//! Requests to the service. An error response becomes its message, followed by every problem it
//! lists.

use std::{fmt::Write as _, fs, io::Write as _, os::unix::fs::PermissionsExt as _, path::Path};

use anyhow::Context as _;
use futures_util::TryStreamExt as _;
use reqwest::{Method, RequestBuilder, Response, multipart};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

use crate::{config::ClientArgs, domain::report::Report};

const ENDED_EARLY: &str = "the response ended early";

/// The service's address and the user's key.
pub(super) struct Api {
    base: String,
    key: Option<String>,
    http: reqwest::Client,
}

impl Api {
    pub(super) fn new(args: &ClientArgs) -> Self {
        Self {
            base: args.url.trim_end_matches('/').to_owned(),
            key: args.api_key.clone(),
            http: reqwest::Client::new(),
        }
    }

    pub(super) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.send(self.request(Method::GET, path)).await
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.send(self.request(Method::POST, path).json(body)).await
    }

    pub(super) async fn post_form(
        &self,
        path: &str,
        form: multipart::Form,
    ) -> anyhow::Result<Value> {
        self.send(self.request(Method::POST, path).multipart(form))
            .await
    }

    /// The report of a job.
    pub(super) async fn report(&self, job: &str) -> anyhow::Result<Report> {
        let path = format!("/v1/fine_tuning/jobs/{job}/report");
        serde_json::from_value(self.get(&path).await?)
            .context("cannot read the report; use a client of the service's version")
    }

    /// Writes the response's body to `target`, which appears only once it is complete.
    pub(super) async fn download(&self, path: &str, target: &Path) -> anyhow::Result<()> {
        let response = self.answer(self.request(Method::GET, path)).await?;
        let failed = || format!("cannot write `{}`", target.display());
        let folder = target
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        let staged = tempfile::Builder::new()
            .prefix(".rehead-")
            .permissions(fs::Permissions::from_mode(0o644))
            .tempfile_in(folder.unwrap_or(Path::new(".")))
            .with_context(failed)?;
        let mut file = tokio::fs::File::from_std(staged.reopen().with_context(failed)?);
        let mut pieces = response.bytes_stream();
        while let Some(piece) = pieces.try_next().await.context(ENDED_EARLY)? {
            file.write_all(&piece).await.with_context(failed)?;
        }
        file.sync_all().await.with_context(failed)?;
        staged.persist(target).with_context(failed)?;
        Ok(())
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    async fn send(&self, request: RequestBuilder) -> anyhow::Result<Value> {
        let response = self.answer(request).await?;
        self.json(response).await
    }

    /// A response that is a success.
    async fn answer(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        let response = request.send().await.with_context(|| {
            format!(
                "no answer from {}; check that the service runs (`rehead up`) and that --url is its address",
                self.base
            )
        })?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        anyhow::bail!(explain(status.as_u16(), &self.json(response).await?))
    }

    async fn json(&self, response: Response) -> anyhow::Result<Value> {
        let status = response.status();
        let body = response.text().await.context(ENDED_EARLY)?;
        serde_json::from_str(&body).ok().with_context(|| {
            format!(
                "{} answered {status} without JSON; check that --url is the address of a Rehead service",
                self.base
            )
        })
    }
}

/// A file as a part of a form, streamed.
pub(super) async fn file_part(path: &Path) -> anyhow::Result<multipart::Part> {
    multipart::Part::file(path)
        .await
        .with_context(|| format!("cannot read `{}`", path.display()))
}

/// The error's message, then a line for each problem that it does not mention.
fn explain(status: u16, body: &Value) -> String {
    let error = &body["error"];
    let message = error["message"].as_str().unwrap_or("no message");
    let code = error["code"].as_str().unwrap_or("no code");
    let mut text = format!("{message} ({status} {code})");
    let details = error["details"].as_array();
    for detail in details.into_iter().flatten() {
        let problem = detail["message"].as_str().unwrap_or_default();
        if !message.contains(problem) {
            let path = detail["path"].as_str().unwrap_or_default();
            let _ = write!(text, "\n  {path}: {problem}");
        }
    }
    text
}

/// Writes a line of progress to standard error.
pub(super) fn report(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Writes a result to standard output.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").context("cannot write to standard output")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_problem_is_printed_once() {
        let one = json!({"path": "a", "message": "a is 0"});
        let two = json!({"path": "b", "message": "b is missing"});
        let body =
            json!({"error": {"message": "a is 0", "code": "out_of_range", "details": [one, two]}});
        assert_eq!(
            explain(422, &body),
            "a is 0 (422 out_of_range)\n  b: b is missing"
        );
    }

    #[test]
    fn a_response_of_another_shape_is_still_an_error() {
        assert_eq!(explain(502, &json!([])), "no message (502 no code)");
    }
}
