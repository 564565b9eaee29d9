"""A service in a folder of its own, for benchmarks: started, filled with the demo's data, asked, ended."""

import http.client
import io
import json
import pathlib
import subprocess
import sys
import time
import urllib.parse
import zipfile


class Service:
    """`rehead up` in a new folder, and its process."""

    def __init__(self, rehead, folder, *more):
        self.rehead, self.data = rehead, f"{folder}/data"
        log = open(f"{folder}/log", "w")
        arguments = ["up", "--data-dir", self.data, "--listen", "127.0.0.1:0", "--log", "error", *more]
        arguments += ["--failed-keys-per-minute", "1000000000"]
        self.process = subprocess.Popen([rehead, *arguments], stdout=log, stderr=log)
        address = pathlib.Path(self.data, "url")
        while not address.exists():
            if self.process.poll() is not None:
                sys.exit(pathlib.Path(folder, "log").read_text())
            time.sleep(0.1)
        self.host, self.port = urllib.parse.urlsplit(address.read_text().strip()).netloc.split(":")

    def key(self, tenant, *more):
        create = [self.rehead, "keys", "create", "--data-dir", self.data, "--tenant", tenant, *more]
        return subprocess.run(create, check=True, capture_output=True, text=True).stdout.strip()

    def memory(self):
        """Resident memory of the server's process, in MiB."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1024

    def send(self, key, method, path, body=None, headers=()):
        connection = http.client.HTTPConnection(self.host, self.port, timeout=120)
        connection.request(method, path, body, {"authorization": f"Bearer {key}", **dict(headers)})
        response = connection.getresponse()
        return response.status, response.read()

    def ask(self, key, method, path, body=None):
        text = None if body is None else json.dumps(body)
        status, answer = self.send(key, method, path, text, {"content-type": "application/json"})
        assert status < 300, f"{method} {path}: {status} {answer[:300]}"
        return json.loads(answer)

    def upload(self, key, name, purpose, content):
        parts = f'--x\r\ncontent-disposition: form-data; name="purpose"\r\n\r\n{purpose}\r\n--x\r\n'
        parts += f'content-disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
        form = {"content-type": "multipart/form-data; boundary=x"}
        status, answer = self.send(key, "POST", "/v1/files", parts.encode() + content + b"\r\n--x--\r\n", form)
        assert status == 200, answer
        return json.loads(answer)["id"]

    def bring(self, key, demo):
        """The demo's base model, and some of its images; returns the body of a job on them."""
        weights = next(demo.glob("lite0/**/*.pth")).read_bytes()
        base = {"id": "lite0", "architecture": "tf_efficientnet_lite0",
                "weights": {"file": self.upload(key, "lite0.pth", "weights", weights)}}
        self.ask(key, "POST", "/v1/base_models", base)
        images = self.upload(key, "images.zip", "fine-tune", subset(demo / "clipart.zip"))
        hyperparameters = {"n_epochs": 1}
        return {"model": "lite0", "training_file": images,
                "method": {"type": "transfer", "transfer": {"freeze": "all", "hyperparameters": hyperparameters}}}

    def model(self, key, body):
        """The model of a job that is waited for."""
        job = self.ask(key, "POST", "/v1/fine_tuning/jobs", body)
        while not job["is_terminal"]:
            job = self.ask(key, "GET", f"/v1/fine_tuning/jobs/{job['id']}?wait=60")
        assert job["status"] == "succeeded", job["error"]
        return job["fine_tuned_model"]

    def paused(self, key, body):
        """A job that never ends, so that it can be followed."""
        job = self.ask(key, "POST", "/v1/fine_tuning/jobs", body)["id"]
        self.ask(key, "POST", f"/v1/fine_tuning/jobs/{job}/pause", {})
        return job


def subset(archive):
    """Ten small images of each of two classes."""
    found, packed = {}, io.BytesIO()
    with zipfile.ZipFile(archive) as all_images, zipfile.ZipFile(packed, "w") as few:
        for entry in sorted(all_images.infolist(), key=lambda entry: entry.file_size):
            label = entry.filename.split("/")[-2] if "/" in entry.filename else ""
            if not entry.is_dir() and label and (label in found or len(found) < 2) and found.get(label, 0) < 10:
                found[label] = found.get(label, 0) + 1
                few.writestr(entry.filename, all_images.read(entry))
    return packed.getvalue()
