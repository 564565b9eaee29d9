"""Uses OpenAI's own Python client on a running service, with nothing but its `base_url` changed:
every call of files, uploads, models and fine-tuning.

Usage: openai_client.py URL DATA.zip WEIGHTS.pth
"""

import hashlib
import pathlib
import sys
import time
import uuid

import openai

MODEL = "efficientnet_lite0"
# Trains until it is asked to end.
ENDLESS = {
    "freeze": {"all_but_last_stages": 2},
    "hyperparameters": {"n_epochs": 10_000, "batch_size": 4},
    "early_stopping": {"patience": 10_000},
}


def register(client: openai.OpenAI, weights: pathlib.Path) -> None:
    """Registers the base model, the one call that OpenAI's client does not have."""
    file = client.files.create(file=weights, purpose="weights")
    model = client.post(
        "/base_models",
        body={"id": MODEL, "architecture": "tf_efficientnet_lite0", "weights": {"file": file.id}},
        cast_to=object,
    )
    assert model["status"] == "ready", model


def files(client: openai.OpenAI, data: pathlib.Path) -> str:
    """Uploads, lists over several pages, downloads, deletes; returns a validated data set."""
    made = [
        client.files.create(
            file=(f"{number}.zip", b"not a zip"),
            purpose="fine-tune",
            expires_after={"anchor": "created_at", "seconds": 3600},
        )
        for number in range(5)
    ]
    assert made[0].expires_at - made[0].created_at == 3600, made[0]
    ids = [file.id for file in made]
    listed = [file.id for file in client.files.list(limit=2, order="asc", purpose="fine-tune")]
    assert [id for id in listed if id in ids] == ids, listed
    assert listed == [file.id for file in client.files.list(limit=10_000, order="asc", purpose="fine-tune")]
    after = client.files.list(after=ids[2], limit=2, order="asc").data
    assert [file.id for file in after] == ids[3:], after
    assert client.files.content(ids[0]).read() == b"not a zip"
    assert client.files.wait_for_processing(ids[0], poll_interval=0.2).status == "error"
    for id in ids:
        assert client.files.delete(id).deleted
    key = {"Idempotency-Key": str(uuid.uuid4())}
    first, again = (
        client.files.with_raw_response.create(file=data, purpose="fine-tune", extra_headers=key)
        for _ in range(2)
    )
    assert again.headers["idempotent-replayed"] == "true"
    assert first.parse().id == again.parse().id
    file = client.files.wait_for_processing(first.parse().id, poll_interval=0.2)
    assert file.status == "processed", file
    return file.id


def uploads(client: openai.OpenAI, data: pathlib.Path) -> None:
    content = data.read_bytes()
    upload = client.uploads.create(
        filename="a.zip", purpose="fine-tune", bytes=len(content), mime_type="application/zip"
    )
    assert upload.status == "pending" and upload.file is None, upload
    half = len(content) // 2
    second = client.uploads.parts.create(upload.id, data=content[half:])
    first = client.uploads.parts.create(upload.id, data=content[:half])
    done = client.uploads.complete(
        upload.id, part_ids=[first.id, second.id], md5=hashlib.md5(content).hexdigest()
    )
    assert done.status == "completed" and done.file.bytes == len(content), done
    assert client.files.content(done.file.id).read() == content
    chunked = client.uploads.upload_file_chunked(
        file=data, mime_type="application/zip", purpose="fine-tune", part_size=len(content) // 5 + 1
    )
    assert chunked.status == "completed" and chunked.file.bytes == len(content), chunked
    for file in (done.file.id, chunked.file.id):
        client.files.delete(file)
    other = client.uploads.create(filename="a", purpose="fine-tune", bytes=1, mime_type="text/plain")
    assert client.uploads.cancel(other.id).status == "cancelled"


def until(client: openai.OpenAI, job: str, *wanted: str):
    for _ in range(1_200):
        found = client.fine_tuning.jobs.retrieve(job)
        if found.status in wanted:
            return found
        assert found.status not in ("succeeded", "failed", "cancelled"), found
        time.sleep(0.1)
    raise AssertionError(f"{job} is {found.status}, not one of {wanted}")


def fine_tuning(client: openai.OpenAI, file: str) -> None:
    jobs = client.fine_tuning.jobs
    job = jobs.create(
        model=MODEL,
        training_file=file,
        suffix="openai",
        seed=7,
        metadata={"team": "contract"},
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 3}}},
    )
    assert job.status in ("queued", "running") and job.trained_tokens is None, job
    job = until(client, job.id, "succeeded")
    assert job.trained_tokens > 0 and job.error is None, job
    assert job.hyperparameters.n_epochs == 3, job

    for pages in (jobs.list_events(job.id, limit=2), jobs.checkpoints.list(job.id, limit=1)):
        ids = [one.id for one in pages]
        assert len(ids) == len(set(ids)) > 0, ids
    events = [event.id for event in jobs.list_events(job.id)]
    assert events == [event.id for event in jobs.list_events(job.id, limit=2)]
    checkpoint = jobs.checkpoints.list(job.id).data[0]
    assert checkpoint.metrics.valid_loss is not None, checkpoint
    (results,) = job.result_files
    assert client.files.retrieve(results).purpose == "fine-tune-results"
    header, *rows = client.files.content(results).text.splitlines()
    assert header.startswith("step,") and "valid_loss" in header and rows, header

    endless = jobs.create(
        model=MODEL, training_file=file, method={"type": "transfer", "transfer": ENDLESS}
    )
    until(client, endless.id, "running")
    jobs.pause(endless.id)
    until(client, endless.id, "paused")
    assert jobs.resume(endless.id).status in ("queued", "running")
    jobs.cancel(endless.id)
    until(client, endless.id, "cancelled")
    listed = [found.id for found in jobs.list(limit=1)]
    assert listed[:2] == [endless.id, job.id], listed
    assert [found.id for found in jobs.list(metadata={"team": "contract"})] == [job.id]

    models = client.models
    assert {MODEL, job.fine_tuned_model} <= {model.id for model in models.list()}
    assert models.retrieve(job.fine_tuned_model).id == job.fine_tuned_model
    assert models.delete(job.fine_tuned_model).deleted


def errors(client: openai.OpenAI, file: str) -> None:
    for call, kind, code in (
        (lambda: client.files.retrieve("file-none"), openai.NotFoundError, "not_found"),
        (lambda: client.models.retrieve("none"), openai.NotFoundError, "not_found"),
        (
            lambda: client.fine_tuning.jobs.create(model="none", training_file=file),
            openai.UnprocessableEntityError,
            "unknown_model",
        ),
    ):
        try:
            call()
        except kind as error:
            assert error.code == code and error.request_id, error
        else:
            raise AssertionError(f"no {kind.__name__}")


def main(url: str, data: str, weights: str) -> None:
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="rh_none", max_retries=0)
    register(client, pathlib.Path(weights))
    file = files(client, pathlib.Path(data))
    uploads(client, pathlib.Path(data))
    fine_tuning(client, file)
    errors(client, file)
    print(f"openai {openai.__version__} for Python")


main(*sys.argv[1:])
