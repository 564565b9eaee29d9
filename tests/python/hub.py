"""A hub with the public routes of Hugging Face's, for tests: repositories of models and data sets
below a folder (models/ORG/NAME/..., datasets/ORG/NAME/...), downloads as huggingface_hub does them
(metadata, redirects of large files to another host, ranges, tags), uploads as it does them
(branches, pre-upload, LFS batch, parts, commit), and faults on request.

Usage: hub.py FOLDER [--token TOKEN] [--url-file FILE]

Large files are those of LARGE, or of more than LARGE_BYTES; they lie on the "store", a second port
that refuses tokens as a CDN does. Faults are set by POST /_test/faults with a list of
{"path": REGEX, "times": N, "status": 429, "headers": {...}} or {"path", "times", "cut_after": BYTES};
{"delay_s": S} waits before each 64 KiB. GET /_test/requests lists what was asked for.
"""

import argparse
import base64
import hashlib
import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

LARGE = (".safetensors", ".bin", ".pth", ".pt", ".parquet", ".zip", ".tar", ".onnx")
LARGE_BYTES = 10 << 20
CHUNK = 64 << 10


def git_oid(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Blob:
    def __init__(self, content, path):
        self.content = content
        self.is_large = path.endswith(LARGE) or len(content) > LARGE_BYTES
        self.sha256 = hashlib.sha256(content).hexdigest()
        self.oid = git_oid(self.pointer() if self.is_large else content)

    def pointer(self):
        """The text that git has in place of a large file."""
        lines = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.content)}\n"
        return lines.encode()


class Repository:
    """Commits are dictionaries of blobs by path; `main` and each name of a branch or tag is one."""

    def __init__(self, kind, name):
        self.kind, self.name = kind, name
        self.commits, self.refs = {}, {}
        self.gated = self.private = False
        self.commit({})

    def commit(self, files, ref="main"):
        listing = "".join(f"{path} {blob.oid}\n" for path, blob in sorted(files.items()))
        sha = hashlib.sha1(f"{self.name} {len(self.commits)}\n{listing}".encode()).hexdigest()
        self.commits[sha] = files
        self.refs[ref] = sha
        return sha

    def find(self, revision):
        sha = self.refs.get(revision, revision)
        return (sha, self.commits[sha]) if sha in self.commits else (None, None)


class Hub:
    def __init__(self, folder, token):
        self.token = token
        self.lock = threading.Lock()
        self.repositories, self.large = {}, {}
        # Size from which large files come in parts of it, and the parts by hash and number.
        self.part_bytes, self.parts = None, {}
        self.faults, self.requests = [], []
        for kind in ("models", "datasets"):
            for place in sorted(Path(folder).glob(f"{kind}/*/*")):
                repository = self.create(kind, "/".join(place.parts[-2:]))
                paths = sorted(path for path in place.rglob("*") if path.is_file())
                files = {str(path.relative_to(place)): path.read_bytes() for path in paths}
                repository.gated = files.pop(".gated", None) is not None
                repository.private = files.pop(".private", None) is not None
                self.add(repository, files)

    def create(self, kind, name):
        return self.repositories.setdefault((kind, name), Repository(kind, name))

    def add(self, repository, contents, ref="main"):
        """Commits contents by path on top of what a branch has."""
        _, files = repository.find(ref)
        files = dict(files or repository.find("main")[1])
        for path, content in contents.items():
            blob = Blob(content, path)
            self.large[blob.sha256] = blob
            files[path] = blob
        return repository.commit(files, ref)

    def fault(self, path, server):
        """The fault that meets this request, if there is one."""
        with self.lock:
            for fault in self.faults:
                if fault.get("times", 1) > 0 and fault.get("on", server) == server and re.search(fault["path"], path):
                    fault["times"] = fault.get("times", 1) - 1
                    return fault
        return {}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub = None
    server_name = "hub"

    def log_message(self, *_):
        pass

    def send(self, status, body=b"", **headers):
        if isinstance(body, (dict, list)):
            body, headers = json.dumps(body).encode(), {"content_type": "application/json", **headers}
        self.send_response(status)
        for name, value in {"content_length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def error(self, status, code, message):
        self.send(status, {"error": message}, x_error_code=code, x_error_message=message)

    def send_content(self, content, fault, **headers):
        """Sends a file or the range of it that is asked for; cut off where a fault says so."""
        first, last, status = 0, len(content) - 1, 200
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range", ""))
        is_same = self.headers.get("if-range", headers["etag"]) == headers["etag"]
        if asked and is_same and not fault.get("no_ranges"):
            first, last = int(asked[1]), int(asked[2] or last)
            last = min(last, len(content) - 1)
            if first > last:
                return self.send(416, content_range=f"bytes */{len(content)}")
            status = 206
            headers["content_range"] = f"bytes {first}-{last}/{len(content)}"
        body = content[first : last + 1]
        self.send_response(status)
        for name, value in {"accept_ranges": "bytes", "content_length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command == "HEAD":
            return None
        cut = fault.get("cut_after")
        body = body if cut is None else body[:cut]
        for start in range(0, len(body), CHUNK):
            time.sleep(fault.get("delay_s", 0))
            self.wfile.write(body[start : start + CHUNK])
        if cut is not None:
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()

    def body(self):
        return self.rfile.read(int(self.headers.get("content-length") or 0))

    def handle_one(self):
        url = urlsplit(self.path)
        path = unquote(url.path)
        body = self.body() if self.command in ("POST", "PUT") else b""
        if path.startswith("/_test/"):
            return self.control(path, body)
        with self.hub.lock:
            names = ("range", "if-range", "authorization")
            headers = {name: self.headers[name] for name in names if name in self.headers}
            self.hub.requests.append({"server": self.server_name, "method": self.command, "path": path, **headers})
        fault = self.hub.fault(path, self.server_name)
        if "status" in fault:
            headers = {name.replace("-", "_"): value for name, value in fault.get("headers", {}).items()}
            return self.send(fault["status"], **headers)
        return self.answer(path, parse_qs(url.query), body, fault)

    do_GET = do_HEAD = do_POST = do_PUT = handle_one

    def control(self, path, body):
        if path == "/_test/faults":
            with self.hub.lock:
                self.hub.faults = json.loads(body)
            return self.send(200, {})
        with self.hub.lock:
            requests, self.hub.requests = self.hub.requests, []
        return self.send(200, requests)


class Store(Handler):
    """Where large files lie: by hash, with a signature in the URL in place of a token."""

    server_name = "store"

    def answer(self, path, query, body, fault):
        if "authorization" in self.headers:
            return self.send(400, b"a token and a signature")
        part = re.fullmatch(r"/part/([0-9a-f]+)/(\d+)", path)
        if part and self.command == "PUT":
            self.hub.parts.setdefault(part[1], {})[int(part[2])] = body
            return self.send(200, etag=f'"{hashlib.md5(body).hexdigest()}"')
        sha256 = path.rsplit("/", 1)[1]
        if self.command == "PUT":
            blob = Blob(body, "x.bin")
            if blob.sha256 != sha256:
                return self.send(400, b"the content has another hash")
            self.hub.large[sha256] = blob
            return self.send(200, etag=f'"{hashlib.md5(body).hexdigest()}"')
        if sha256 not in self.hub.large or query.get("signature") != ["s"]:
            return self.send(403)
        content = self.hub.large[sha256].content
        return self.send_content(content, fault, etag=f'"{hashlib.md5(content).hexdigest()}"')


class HubHandler(Handler):
    store = ""

    def answer(self, path, query, body, fault):
        for pattern, handler in ROUTES:
            match = re.fullmatch(pattern, path)
            if match:
                return handler(self, *match.groups(), query=query, body=body, fault=fault)
        return self.error(404, "EntryNotFound", "no such route")

    def token(self):
        return self.headers.get("authorization", "").removeprefix("Bearer ")

    def may_write(self):
        if self.hub.token and self.token() == self.hub.token:
            return True
        self.error(401, "Unauthorized", "Invalid credentials in Authorization header")
        return False

    def repository(self, kind, name):
        """A repository that the caller may see."""
        found = self.hub.repositories.get((kind, name))
        has_token = bool(self.hub.token) and self.token() == self.hub.token
        if found is None or (found.private and not has_token):
            self.error(404 if has_token else 401, "RepoNotFound", "Repository not found")
            return None
        return found

    def may_read(self, repository):
        if repository.gated and self.token() != self.hub.token:
            status = 403 if self.token() else 401
            self.error(status, "GatedRepo", f"Access to {repository.kind} {repository.name} is restricted.")
            return False
        return True

    def info(self, kind, name, revision, query, **_):
        repository = self.repository(kind, name)
        if not repository:
            return None
        sha, files = repository.find(unquote(revision or "main"))
        if sha is None:
            return self.error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        siblings = []
        for path, blob in sorted(files.items()):
            one = {"rfilename": path}
            if query.get("blobs") == ["true"] or query.get("blobs") == ["True"]:
                one |= {"size": len(blob.content), "blobId": blob.oid}
                if blob.is_large:
                    pointer = len(blob.pointer())
                    one["lfs"] = {"sha256": blob.sha256, "size": len(blob.content), "pointerSize": pointer}
            siblings.append(one)
        gated = "manual" if repository.gated else False
        answer = {"id": name, "sha": sha, "siblings": siblings, "gated": gated, "private": repository.private}
        license = re.search(rb"^license: (.*)$", files["README.md"].content, re.M) if "README.md" in files else None
        if license:
            answer["cardData"] = {"license": license[1].decode()}
        return self.send(200, answer)

    def tree(self, kind, name, revision, _, query, **__):
        repository = self.repository(kind, name)
        if not repository:
            return None
        sha, files = repository.find(revision)
        if sha is None:
            return self.error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        entries = []
        for path, blob in sorted(files.items()):
            one = {"type": "file", "path": path, "size": len(blob.content), "oid": blob.oid}
            if blob.is_large:
                one["lfs"] = {"oid": blob.sha256, "size": len(blob.content), "pointerSize": len(blob.pointer())}
            entries.append(one)
        return self.send(200, entries)

    def resolve(self, prefix, name, revision, path, fault, **_):
        repository = self.repository("datasets" if prefix else "models", name)
        if not repository or not self.may_read(repository):
            return None
        sha, files = repository.find(revision)
        if sha is None:
            return self.error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        if path not in files:
            return self.error(404, "EntryNotFound", "Entry not found")
        blob = files[path]
        if not blob.is_large:
            return self.send_content(blob.content, fault, etag=f'"{blob.oid}"', x_repo_commit=sha)
        location = f"{self.store}/lfs/{blob.sha256}?signature=s"
        linked = {"x_linked_size": len(blob.content), "x_linked_etag": f'"{blob.sha256}"'}
        return self.send(302, location=location, x_repo_commit=sha, etag=f'"{blob.oid}"', **linked)

    def whoami(self, **_):
        if self.may_write():
            self.send(200, {"type": "user", "name": "tester", "orgs": [], "auth": {"type": "access_token"}})

    def create(self, body, **_):
        if not self.may_write():
            return None
        asked = json.loads(body)
        owner = asked.get("organization") or "tester"
        kind, name = f"{asked.get('type', 'model')}s", f"{owner}/{asked['name']}"
        url = f"http://{self.headers['host']}/{'datasets/' if kind == 'datasets' else ''}{name}"
        if (kind, name) in self.hub.repositories:
            return self.send(409, {"error": "You already created this model repo", "url": url})
        repository = self.hub.create(kind, name)
        repository.private = asked.get("private") is True or asked.get("visibility") == "private"
        self.hub.add(repository, {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"})
        return self.send(200, {"url": url, "name": name, "id": name})

    def validate_yaml(self, **_):
        self.send(200, {"errors": [], "warnings": []})

    def preupload(self, kind, name, revision, body, **_):
        repository = self.repository(kind, name) if self.may_write() else None
        if not repository:
            return None
        _, files = repository.find(revision)
        answer = []
        for file in json.loads(body)["files"]:
            path = file["path"]
            mode = "lfs" if path.endswith(LARGE) or file["size"] > LARGE_BYTES else "regular"
            old = files.get(path) if files else None
            oid = old and (old.sha256 if old.is_large else old.oid)
            answer.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return self.send(200, {"files": answer})

    def batch(self, prefix, name, body, **_):
        kind = "datasets" if prefix else "models"
        if not self.may_write() or not self.repository(kind, name):
            return None
        objects = []
        for one in json.loads(body)["objects"]:
            answer = {"oid": one["oid"], "size": one["size"], "authenticated": True}
            if one["oid"] not in self.hub.large:
                own = f"http://{self.headers['host']}"
                verify = f"{own}/{name}.git/info/lfs/verify"
                upload = {"href": f"{self.store}/lfs/{one['oid']}"}
                size = self.hub.part_bytes
                if size and one["size"] > size:
                    numbers = range(1, -(-one["size"] // size) + 1)
                    urls = {f"{number:05}": f"{self.store}/part/{one['oid']}/{number}" for number in numbers}
                    upload = {"href": f"{own}/complete/{one['oid']}", "header": {"chunk_size": str(size), **urls}}
                answer["actions"] = {"upload": upload, "verify": {"href": verify}}
            objects.append(answer)
        answer = {"transfer": "basic", "objects": objects}
        return self.send(200, answer, content_type="application/vnd.git-lfs+json")

    def complete(self, oid, body, **_):
        parts = self.hub.parts.pop(oid, {})
        named = [(part["partNumber"], part["etag"]) for part in json.loads(body)["parts"]]
        there = [(number, f'"{hashlib.md5(part).hexdigest()}"') for number, part in sorted(parts.items())]
        blob = Blob(b"".join(part for _, part in sorted(parts.items())), "x.bin")
        if named != there or blob.sha256 != oid:
            return self.send(400, b"these are not the parts")
        self.hub.large[oid] = blob
        return self.send(200, {})

    def branch(self, kind, name, branch, **_):
        repository = self.repository(kind, name) if self.may_write() else None
        if not repository:
            return None
        if branch in repository.refs:
            return self.error(409, "Conflict", "Reference already exists")
        repository.refs[branch] = repository.refs["main"]
        return self.send(200, {})

    def verify(self, name, body, **_):
        if self.may_write():
            asked = json.loads(body)
            blob = self.hub.large.get(asked["oid"])
            is_same = blob is not None and len(blob.content) == asked["size"]
            self.send(200 if is_same else 422, {})

    def commit(self, kind, name, revision, body, **_):
        repository = self.repository(kind, name) if self.may_write() else None
        if not repository:
            return None
        if unquote(revision) not in repository.refs:
            return self.error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        lines = [json.loads(line) for line in body.splitlines() if line.strip()]
        if not lines or lines[0]["key"] != "header" or "summary" not in lines[0]["value"]:
            return self.error(400, "BadRequest", "a commit begins with its header")
        contents = {}
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                contents[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                blob = self.hub.large.get(value["oid"])
                if blob is None or len(blob.content) != value["size"]:
                    return self.error(400, "BadRequest", f"{value['path']} was not uploaded")
                contents[value["path"]] = blob.content
            else:
                return self.error(400, "BadRequest", f"{line['key']} is not done here")
        sha = self.hub.add(repository, contents, unquote(revision))
        url = f"http://{self.headers['host']}/{name}/commit/{sha}"
        return self.send(200, {"success": True, "commitOid": sha, "commitUrl": url})


NAME = r"([^/]+/[^/]+)"
KIND = r"/api/(models|datasets)/" + NAME
ROUTES = [
    (KIND + r"(?:/revision/(.+))?", HubHandler.info),
    (KIND + r"/tree/([^/]+)(/.*)?", HubHandler.tree),
    (r"/(datasets/)?" + NAME + r"/resolve/([^/]+)/(.+)", HubHandler.resolve),
    (r"/api/whoami-v2", HubHandler.whoami),
    (r"/api/repos/create", HubHandler.create),
    (r"/api/validate-yaml", HubHandler.validate_yaml),
    (KIND + r"/branch/(.+)", HubHandler.branch),
    (KIND + r"/preupload/(.+)", HubHandler.preupload),
    (r"/(datasets/)?" + NAME + r"\.git/info/lfs/objects/batch", HubHandler.batch),
    (r"/" + NAME + r"\.git/info/lfs/verify", HubHandler.verify),
    (r"/complete/([0-9a-f]+)", HubHandler.complete),
    (KIND + r"/commit/(.+)", HubHandler.commit),
]


def start(folder, token="hf_test"):
    """Starts a hub and its store. Returns the hub, and the URL of it."""
    hub = Hub(folder, token)
    store = ThreadingHTTPServer(("127.0.0.1", 0), type("S", (Store,), {"hub": hub}))
    store_url = f"http://127.0.0.1:{store.server_port}"
    handler = type("H", (HubHandler,), {"hub": hub, "store": store_url})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    for one in (store, server):
        one.daemon_threads = True
        threading.Thread(target=one.serve_forever, daemon=True).start()
    return hub, f"http://127.0.0.1:{server.server_port}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--token", default="hf_test")
    parser.add_argument("--url-file")
    args = parser.parse_args()
    _, url = start(args.folder, args.token)
    if args.url_file:
        Path(args.url_file).write_text(url)
    print(url, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
