//! A hub that takes commits as Hugging Face's does, with a store for large files on another port;
//! and faults instead of answers.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use axum::{
    body::{Body, Bytes},
    response::Response,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use super::receiver::{Received, Receiver, status};

pub(crate) const TOKEN: &str = "hf_of_the_operator";

/// Answers a request in the hub's place: `Some(None)` never. It is given the request, and how many
/// came before to the same route.
pub(crate) type Fault = Arc<dyn Fn(&Received, usize) -> Option<Option<Response>> + Send + Sync>;

type Files = BTreeMap<String, Bytes>;

#[derive(Default)]
struct State {
    /// By name, then by branch: a commit.
    repositories: BTreeMap<String, BTreeMap<String, String>>,
    private: Vec<String>,
    commits: BTreeMap<String, (Value, Files)>,
    store: BTreeMap<String, Bytes>,
    parts: BTreeMap<String, BTreeMap<usize, Bytes>>,
    seen: BTreeMap<String, usize>,
}

pub(crate) struct PushHub {
    pub(crate) hub: Receiver,
    pub(crate) store: Receiver,
    state: Arc<Mutex<State>>,
}

/// The parts of a server.
#[derive(Clone)]
struct Server {
    state: Arc<Mutex<State>>,
    fault: Fault,
    /// Size of a part of a large file; without it they are sent whole.
    chunk: Option<usize>,
    store_port: u16,
}

impl PushHub {
    /// A hub that takes large files whole.
    pub(crate) async fn start() -> Self {
        Self::with(None, Arc::new(|_, _| None)).await
    }

    pub(crate) async fn with(chunk: Option<usize>, fault: Fault) -> Self {
        let mut server = Server {
            state: Arc::default(),
            fault,
            chunk,
            store_port: 0,
        };
        let state = Arc::clone(&server.state);
        let one = server.clone();
        let store = Receiver::start(move |request, _| one.answer(request, Server::store)).await;
        server.store_port = store.port;
        let hub = Receiver::start(move |request, _| server.answer(request, Server::hub)).await;
        Self { hub, store, state }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.hub.port)
    }

    /// The files of a branch, and the first line of its commit.
    pub(crate) fn branch(&self, repository: &str, branch: &str) -> (Files, String) {
        let state = self.state.lock().unwrap();
        let (header, files) = &state.commits[&state.repositories[repository][branch]];
        let summary = header["summary"].as_str().unwrap().to_owned();
        (files.clone(), summary)
    }

    pub(crate) fn is_private(&self, repository: &str) -> bool {
        let state = self.state.lock().unwrap();
        state.private.iter().any(|one| one == repository)
    }

    /// Commits of all repositories, without the first of each.
    pub(crate) fn commits(&self) -> usize {
        let state = self.state.lock().unwrap();
        state.commits.len() - state.repositories.len()
    }
}

impl Server {
    fn answer(
        &self,
        request: &Received,
        answer: fn(&Self, &Received, &mut State) -> Option<Response>,
    ) -> Option<Response> {
        let mut state = self.state.lock().unwrap();
        let route = format!("{} {}", request.method, request.path);
        let seen = state.seen.entry(route).or_default();
        *seen += 1;
        let before = *seen - 1;
        match (self.fault)(request, before) {
            Some(fault) => fault,
            None => answer(self, request, &mut state),
        }
    }

    fn store(&self, request: &Received, state: &mut State) -> Option<Response> {
        if request.headers.contains_key("authorization") {
            return status(400);
        }
        let names: Vec<&str> = request.path.split('/').collect();
        let length: usize = request.header("content-length").parse().unwrap();
        assert_eq!(length, request.bytes.len());
        match names[..] {
            ["", "lfs", sha256] if hash(&request.bytes) == sha256 => {
                state.store.insert(sha256.to_owned(), request.bytes.clone());
            }
            ["", "part", sha256, number] => {
                let parts = state.parts.entry(sha256.to_owned()).or_default();
                parts.insert(number.parse().unwrap(), request.bytes.clone());
                let response = Response::builder().header("etag", format!("\"tag{number}\""));
                return Some(response.body(Body::empty()).unwrap());
            }
            _ => return status(400),
        }
        status(200)
    }

    fn hub(&self, request: &Received, state: &mut State) -> Option<Response> {
        let path = request.path.split('?').next().unwrap();
        let names: Vec<&str> = path.split('/').collect();
        let is_signed = names[1] == "complete";
        let token = request.headers.get("authorization");
        if token.is_some_and(|token| token == &format!("Bearer {TOKEN}")) == is_signed {
            return refused(401, "Invalid credentials");
        }
        match names[1..] {
            ["complete", sha256] => self.complete(request, sha256, state),
            ["api", "repos", "create"] => create(&request.json(), state),
            ["api", "models", owner, name, verb, branch] => {
                let repository = format!("{owner}/{name}");
                let branch = branch.replace("%2E", ".");
                let Some(branches) = state.repositories.get_mut(&repository) else {
                    return refused(404, "Repository not found");
                };
                if verb == "branch" && !branches.contains_key(&branch) {
                    let main = branches["main"].clone();
                    branches.insert(branch, main);
                    return of_json(&json!({}));
                }
                let Some(commit) = branches.get(&branch).cloned() else {
                    return refused(404, "Invalid rev id");
                };
                match verb {
                    "branch" => refused(409, "Reference already exists"),
                    "preupload" => preupload(&request.json(), &state.commits[&commit].1),
                    "commit" => make_commit(request, (&repository, &branch), state),
                    _ => info(&commit, &state.commits[&commit].1),
                }
            }
            [owner, name, "info", "lfs", "objects", "batch"] => {
                let repository = format!("{owner}/{}", name.strip_suffix(".git").unwrap());
                self.batch(request, &repository, state)
            }
            [_, _, "info", "lfs", "verify"] => {
                let asked = request.json();
                let stored = state.store.get(asked["oid"].as_str().unwrap());
                let is_same = stored.is_some_and(|content| asked["size"] == content.len());
                status(if is_same { 200 } else { 422 })
            }
            [_, _, "resolve", commit, name] => match state.commits[commit].1.get(name) {
                Some(content) => Some(Response::new(Body::from(content.clone()))),
                None => refused(404, "Entry not found"),
            },
            _ => refused(404, "no such route"),
        }
    }

    fn batch(&self, request: &Received, repository: &str, state: &State) -> Option<Response> {
        let asked = request.json();
        let own = format!("http://{}", request.header("host"));
        assert!(state.repositories.contains_key(repository));
        assert_eq!(asked["operation"], "upload");
        let objects = asked["objects"].as_array().unwrap().iter().map(|object| {
            let mut answer = object.clone();
            let oid = object["oid"].as_str().unwrap();
            if state.store.contains_key(oid) {
                return answer;
            }
            let store = format!("http://127.0.0.1:{}", self.store_port);
            let upload = match self.chunk {
                None => json!({"href": format!("{store}/lfs/{oid}")}),
                Some(chunk) => {
                    let count = (object["size"].as_u64().unwrap() as usize).div_ceil(chunk);
                    let urls = (1..=count).map(|number| {
                        let url = format!("{store}/part/{oid}/{number}");
                        (format!("{number:05}"), json!(url))
                    });
                    let mut header: serde_json::Map<String, Value> = urls.collect();
                    header.insert("chunk_size".to_owned(), json!(chunk.to_string()));
                    json!({"href": format!("{own}/complete/{oid}"), "header": header})
                }
            };
            let verify = format!("{own}/{repository}.git/info/lfs/verify");
            answer["actions"] = json!({"upload": upload, "verify": {"href": verify}});
            answer
        });
        of_json(&json!({"transfer": "basic", "objects": objects.collect::<Vec<_>>()}))
    }

    fn complete(&self, request: &Received, sha256: &str, state: &mut State) -> Option<Response> {
        let asked = request.json();
        let parts = state.parts.remove(sha256).unwrap();
        let named = asked["parts"].as_array().unwrap().iter();
        let is_named = named.zip(1..).all(|(part, number)| {
            part["partNumber"] == number && part["etag"] == format!("\"tag{number}\"")
        });
        let content: Bytes = parts.into_values().flatten().collect::<Vec<u8>>().into();
        if !is_named || asked["oid"] != sha256 || hash(&content) != sha256 {
            return status(400);
        }
        state.store.insert(sha256.to_owned(), content);
        status(200)
    }
}

fn create(asked: &Value, state: &mut State) -> Option<Response> {
    let text = |name: &str| asked[name].as_str().unwrap();
    let name = format!("{}/{}", text("organization"), text("name"));
    if state.repositories.contains_key(&name) {
        return refused(409, "You already created this model repo");
    }
    if asked["visibility"] == "private" {
        state.private.push(name.clone());
    }
    let first = commit_id(&name, state.commits.len());
    state.commits.insert(
        first.clone(),
        (json!({"summary": "initial commit"}), Files::new()),
    );
    let branches = BTreeMap::from([("main".to_owned(), first)]);
    state.repositories.insert(name, branches);
    of_json(&json!({"url": ""}))
}

fn preupload(asked: &Value, files: &Files) -> Option<Response> {
    let modes = asked["files"].as_array().unwrap().iter().map(|file| {
        let name = file["path"].as_str().unwrap();
        assert!(
            BASE64_STANDARD
                .decode(file["sample"].as_str().unwrap())
                .is_ok()
        );
        let is_large = name.ends_with(".safetensors");
        let oid = files.get(name).map(|content| match is_large {
            true => hash(content),
            false => {
                let blob = [format!("blob {}\0", content.len()).as_bytes(), content].concat();
                hex::encode(Sha1::digest(blob))
            }
        });
        let mode = if is_large { "lfs" } else { "regular" };
        json!({"path": name, "uploadMode": mode, "shouldIgnore": false, "oid": oid})
    });
    of_json(&json!({"files": modes.collect::<Vec<_>>()}))
}

fn make_commit(
    request: &Received,
    (repository, branch): (&str, &str),
    state: &mut State,
) -> Option<Response> {
    assert_eq!(request.header("content-type"), "application/x-ndjson");
    let lines = request.body.lines();
    let lines: Vec<Value> = lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines[0]["key"], "header");
    let before = &state.repositories[repository][branch];
    let mut files = state.commits[before].1.clone();
    for line in &lines[1..] {
        let value = &line["value"];
        let text = |name: &str| value[name].as_str().unwrap();
        let content = match line["key"].as_str().unwrap() {
            "file" => BASE64_STANDARD.decode(text("content")).unwrap().into(),
            "lfsFile" => match state.store.get(text("oid")) {
                Some(content) => content.clone(),
                None => return refused(400, "the store lacks it"),
            },
            other => return refused(400, other),
        };
        files.insert(text("path").to_owned(), content);
    }
    let id = commit_id(repository, state.commits.len());
    state
        .commits
        .insert(id.clone(), (lines[0]["value"].clone(), files));
    let branches = state.repositories.get_mut(repository).unwrap();
    branches.insert(branch.to_owned(), id.clone());
    of_json(&json!({"success": true, "commitOid": id, "commitUrl": ""}))
}

fn info(commit: &str, files: &Files) -> Option<Response> {
    let siblings = files.iter().map(|(name, content)| {
        let mut one = json!({"rfilename": name, "size": content.len()});
        if name.ends_with(".safetensors") {
            one["lfs"] = json!({"sha256": hash(content), "size": content.len()});
        }
        one
    });
    let siblings: Vec<Value> = siblings.collect();
    of_json(&json!({"id": "", "sha": commit, "siblings": siblings}))
}

fn commit_id(repository: &str, number: usize) -> String {
    hex::encode(Sha1::digest(format!("{repository} {number}")))
}

fn hash(content: &[u8]) -> String {
    hex::encode(Sha256::digest(content))
}

fn of_json(value: &Value) -> Option<Response> {
    Some(Response::new(Body::from(value.to_string())))
}

/// A refusal with its reason, as the hub words it.
pub(crate) fn refused(code: u16, reason: &str) -> Option<Response> {
    let response = Response::builder().status(code);
    let body = json!({ "error": reason }).to_string();
    Some(response.body(Body::from(body)).unwrap())
}
