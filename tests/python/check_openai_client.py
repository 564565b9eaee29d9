"""Uses OpenAI's own Python client on a running service, with nothing but its `base_url` changed.

Usage: check_openai_client.py URL DATA.zip
"""

import sys
import time

import openai


def main(url: str, data: str) -> None:
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="rh_none")
    with open(data, "rb") as file:
        uploaded = client.files.create(file=file, purpose="fine-tune")
    assert client.files.retrieve(uploaded.id).id == uploaded.id
    assert uploaded.id in [file.id for file in client.files.list()]
    assert "efficientnet_lite0" in [model.id for model in client.models.list()]

    job = client.fine_tuning.jobs.create(
        model="efficientnet_lite0",
        training_file=uploaded.id,
        suffix="openai",
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2}}},
    )
    while job.status not in ("succeeded", "failed", "cancelled"):
        time.sleep(0.5)
        job = client.fine_tuning.jobs.retrieve(job.id)
    assert job.status == "succeeded", job.error
    assert client.models.retrieve(job.fine_tuned_model).id == job.fine_tuned_model

    events = list(client.fine_tuning.jobs.list_events(job.id))
    checkpoints = list(client.fine_tuning.jobs.checkpoints.list(job.id))
    assert events and checkpoints
    assert job.id in [found.id for found in client.fine_tuning.jobs.list()]
    try:
        client.fine_tuning.jobs.create(model="nothing", training_file=uploaded.id)
        raise AssertionError("a job of an unknown model was taken")
    except openai.APIStatusError as error:
        assert 400 <= error.status_code < 500 and error.code, error
    client.files.delete(uploaded.id)
    print(f"openai {openai.__version__}: files, models, jobs, {len(events)} events, {len(checkpoints)} checkpoints, errors")


main(*sys.argv[1:])
