//! Requests to the service. An error response becomes its message, followed by every problem it
//! lists, with the exit code of its status.

use std::{
    error::Error, fmt::Write as _, fs, io::Write as _, os::unix::fs::PermissionsExt as _,
    path::Path, time::Duration,
};

use anyhow::Context as _;
use futures_util::TryStreamExt as _;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Method, RequestBuilder, Response, StatusCode, multipart};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use super::sse::Stream;
use crate::{config::ClientArgs, domain::report::Report, exit::Exit};

const ENDED_EARLY: &str = "the response ended early";
/// Time for a connection to be made.
const CONNECT: Duration = Duration::from_secs(10);
/// Characters of an id that a path has as they are.
const IN_PATHS: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b':')
    .remove(b'~');

/// The service's address and the user's key.
pub(super) struct Api {
    base: String,
    key: Option<String>,
    http: reqwest::Client,
}

impl Api {
    pub(super) fn new(args: &ClientArgs) -> Self {
        Self {
            base: args.url.clone(),
            key: args.api_key.clone(),
            http: reqwest::Client::builder()
                .connect_timeout(CONNECT)
                .build()
                .unwrap_or_default(),
        }
    }

    pub(super) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.send(self.request(Method::GET, path)).await
    }

    /// As `get`; `None` when the key's role does not allow it.
    pub(super) async fn get_if_allowed(&self, path: &str) -> anyhow::Result<Option<Value>> {
        let response = self.reach(self.request(Method::GET, path)).await?;
        if response.status() == StatusCode::FORBIDDEN {
            return Ok(None);
        }
        self.json(self.succeed(response).await?).await.map(Some)
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

    /// The error that the service would answer a request with for other reasons than `path`;
    /// nothing if there are none.
    pub(super) async fn problems_beside(
        &self,
        path: &str,
        request: &str,
        body: &Value,
    ) -> anyhow::Result<()> {
        let response = self
            .reach(self.request(Method::POST, request).json(body))
            .await?;
        if response.status() != StatusCode::UNPROCESSABLE_ENTITY {
            return self.succeed(response).await.map(drop);
        }
        let mut answer = self.json(response).await?;
        let Value::Array(details) = answer["error"]["details"].take() else {
            return Err(refused(422, &answer));
        };
        let others: Vec<Value> = details
            .into_iter()
            .filter(|detail| detail["path"] != path)
            .collect();
        let Some(first) = others.first().cloned() else {
            return Ok(());
        };
        let error = json!({"message": first["message"], "code": first["code"], "details": others});
        Err(refused(422, &json!({ "error": error })))
    }

    /// The report of a job.
    pub(super) async fn report(&self, job: &str) -> anyhow::Result<Report> {
        serde_json::from_value(self.get(&format!("{}/report", job_path(job))).await?)
            .context("cannot read the report; use a client of the service's version")
    }

    /// Opens a stream of the events after `last`.
    pub(super) async fn events(&self, path: &str, last: Option<&str>) -> anyhow::Result<Stream> {
        let mut request = self.request(Method::GET, path);
        request = request.header("accept", "text/event-stream");
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        self.answer(request).await.map(Stream::of)
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
        let response = self.reach(request).await?;
        self.succeed(response).await
    }

    /// A response, whatever it is.
    async fn reach(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        request.send().await.map_err(|error| {
            Exit::Unavailable.error(format!(
                "cannot reach {}: {}; start the service there (`rehead up`), or give its address with --url or REHEAD_URL",
                self.base,
                cause(&error)
            ))
        })
    }

    async fn succeed(&self, response: Response) -> anyhow::Result<Response> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        Err(refused(status.as_u16(), &self.json(response).await?))
    }

    async fn json(&self, response: Response) -> anyhow::Result<Value> {
        let status = response.status();
        let body = response.text().await.context(ENDED_EARLY)?;
        serde_json::from_str(&body).map_err(|_| {
            let exit = match status.is_success() {
                true => Exit::Unavailable,
                false => Exit::of_status(status.as_u16()),
            };
            exit.error(format!(
                "{} answered {status} without JSON; check that --url is the address of a Rehead service",
                self.base
            ))
        })
    }
}

/// The path of a job, whatever its id is made of.
pub(super) fn job_path(id: &str) -> String {
    format!("/v1/fine_tuning/jobs/{}", in_path(id))
}

/// The path of a model.
pub(super) fn model_path(id: &str) -> String {
    format!("/v1/models/{}", in_path(id))
}

pub(super) fn in_path(id: &str) -> String {
    utf8_percent_encode(id, IN_PATHS).to_string()
}

/// The id of an object.
pub(super) fn id_of(answer: &Value) -> anyhow::Result<String> {
    let id = answer["id"].as_str();
    let id = id.context("the response has no `id`; use a client of the service's version")?;
    Ok(id.to_owned())
}

/// The first cause of an error, which says most: `connection refused`, not `error sending request`.
fn cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// The error of a response.
fn refused(status: u16, body: &Value) -> anyhow::Error {
    Exit::of_status(status).error(explain(status, body))
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

/// Writes a result to standard output as JSON.
pub(super) fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    print(&serde_json::to_string_pretty(value)?)
}

/// Leaves out what is `null`, here and in objects inside.
pub(super) fn given(value: Value) -> Value {
    let Value::Object(fields) = value else {
        return value;
    };
    let fields = fields.into_iter().filter(|(_, value)| !value.is_null());
    fields.map(|(name, value)| (name, given(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_cannot_leave_its_place_in_a_path() {
        assert_eq!(job_path("ftjob-1"), "/v1/fine_tuning/jobs/ftjob-1");
        let model = "ft:lite0:mine:1a2b";
        assert_eq!(model_path(model), format!("/v1/models/{model}"));
        assert_eq!(model_path("a/b?c#d"), "/v1/models/a%2Fb%3Fc%23d");
    }

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
