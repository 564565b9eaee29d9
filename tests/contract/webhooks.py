"""Receives webhooks of a running service and verifies them with OpenAI's Python client.

Usage: webhooks.py URL DATA.zip MODEL
The service must allow webhooks to 127.0.0.1 (`--private-hosts 127.0.0.1:*`).
"""

import http.server
import queue
import sys
import threading

import openai

received = queue.Queue()


class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        received.put((body.decode(), dict(self.headers)))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


def main(url: str, data: str, model: str) -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="rh_none")
    target = f"http://127.0.0.1:{server.server_port}/hook"
    webhook = client.post("/webhooks", body={"url": target}, cast_to=object)

    with open(data, "rb") as file:
        uploaded = client.files.create(file=file, purpose="fine-tune")
    job = client.fine_tuning.jobs.create(model=model, training_file=uploaded.id)
    client.fine_tuning.jobs.cancel(job.id)
    body, headers = received.get(timeout=60)
    event = client.webhooks.unwrap(body, headers, secret=webhook["secret"])
    assert event.type == "fine_tuning.job.cancelled", event
    assert type(event).__name__ == "FineTuningJobCancelledWebhookEvent", type(event)
    assert event.object == "event" and event.id.startswith("evt_") and event.data.id == job.id
    assert event.data.status == "cancelled" and event.data.training_file == uploaded.id

    for tampered, secret in [(body.replace("cancelled", "succeeded"), webhook["secret"]), (body, "whsec_" + "A" * 43 + "=")]:
        try:
            client.webhooks.unwrap(tampered, headers, secret=secret)
            raise AssertionError("a wrong signature was taken")
        except openai.InvalidWebhookSignatureError:
            pass

    client.post(f"/webhooks/{webhook['id']}/test", body={}, cast_to=object)
    body, headers = received.get(timeout=60)
    assert client.webhooks.unwrap(body, headers, secret=webhook["secret"]).type == "webhook.test"
    client.delete(f"/webhooks/{webhook['id']}", cast_to=object)
    print(f"openai {openai.__version__} for Python: webhooks verified and read")


main(*sys.argv[1:])
