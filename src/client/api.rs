//! Requests to the service. An error answer becomes the sentence that the service wrote, with every problem it lists.

use std::{fmt::Write as _, io::Write as _, path::Path};

use anyhow::Context as _;
use reqwest::{Method, RequestBuilder, multipart};
use serde_json::Value;

use crate::config::ClientArgs;

/// The service, as one user sees it.
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

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    async fn send(&self, request: RequestBuilder) -> anyhow::Result<Value> {
        let response = request.send().await.with_context(|| {
            format!(
                "no answer from {}; is the service up (`make up`), and --url right?",
                self.base
            )
        })?;
        let status = response.status();
        let body = response.text().await.context("the answer broke off")?;
        let json: Option<Value> = serde_json::from_str(&body).ok();
        match json {
            Some(json) if status.is_success() => Ok(json),
            Some(json) => Err(anyhow::anyhow!(explain(status.as_u16(), &json))),
            None => Err(anyhow::anyhow!(
                "{} answered {status} without JSON; is it a Rehead service?",
                self.base
            )),
        }
    }
}

/// A file as one part of a form, streamed.
pub(super) async fn file_part(path: &Path) -> anyhow::Result<multipart::Part> {
    multipart::Part::file(path)
        .await
        .with_context(|| format!("cannot read {}", path.display()))
}

/// The service's own sentence, then one line for each problem beyond the first.
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

/// One line for people, beside the results.
pub(super) fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// A result.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").context("cannot write to standard output")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_problem_is_told_once() {
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
    fn an_answer_of_another_shape_is_still_told() {
        assert_eq!(explain(502, &json!([])), "no message (502 no code)");
    }
}
