#!/usr/bin/env python3
"""Predictions of a warm model: bench/predict.sh runs it.

One client after the other, then 16 at once, each with one image a request over a kept connection, beside the network's own time for
one image and its rate in batches (`examples/features`), in turns. Needs nothing but Python 3.
"""

import http.client
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time

from service import Service

ROUNDS = 5
SINGLE = 100
CLIENTS = 16
SECONDS = 5
NETWORK = "tf_efficientnet_lite0"


def own(features, threads, batch):
    """Images a second of the network itself; with 0 threads one batch after the other, on all of torch's."""
    command = [features, NETWORK, str(threads), str(batch), "3"]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


class Client:
    def __init__(self, service, key, model, image):
        self.connection = http.client.HTTPConnection(service.host, service.port, timeout=60)
        self.path = f"/v1/models/{model}/predict"
        self.body = b'--x\r\ncontent-disposition: form-data; name="image"; filename="a"\r\n\r\n' + image + b"\r\n--x--\r\n"
        self.headers = {"authorization": f"Bearer {key}", "content-type": "multipart/form-data; boundary=x"}

    def predict(self):
        started = time.perf_counter()
        self.connection.request("POST", self.path, self.body, self.headers)
        response = self.connection.getresponse()
        answer = json.loads(response.read())
        assert response.status == 200, answer
        return (time.perf_counter() - started) * 1000


def quantile(times, share):
    return sorted(times)[min(len(times) - 1, int(share * len(times)))]


def at_once(clients):
    ends = time.perf_counter() + SECONDS
    times = [[] for _ in clients]

    def run(client, own_times):
        while time.perf_counter() < ends:
            own_times.append(client.predict())

    threads = [threading.Thread(target=run, args=pair) for pair in zip(clients, times)]
    started = time.perf_counter()
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    everything = [one for some in times for one in some]
    return len(everything) / (time.perf_counter() - started), everything


def spread(values):
    values = sorted(values)
    return f"{values[len(values) // 2]:.2f} ({values[0]:.2f} to {values[-1]:.2f})"


def main():
    rehead, features, demo = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3])
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="rehead-bench-") as folder:
        os.chmod(folder, 0o711)
        service = Service(rehead, folder, "--requests-per-minute", "1000000000")
        try:
            key = service.key("default", "--role", "admin")
            model = service.model(key, service.bring(key, demo))
            image = next(iter(sorted((demo / "unseen").glob("*.png")))).read_bytes()
            clients = [Client(service, key, model, image) for _ in range(CLIENTS)]
            for client in clients:
                client.predict()
            rows = {name: [] for name in ("network", "alone", "p99", "above", "rate", "share", "loaded")}
            for _ in range(ROUNDS):
                network, rate = 1000 / own(features, 0, 1), own(features, cores, 4)
                alone = [clients[0].predict() for _ in range(SINGLE)]
                reached, times = at_once(clients)
                p50 = quantile(alone, 0.5)
                rows["network"].append(network)
                rows["alone"].append(p50)
                rows["p99"].append(quantile(alone, 0.99))
                rows["above"].append(p50 - 1.2 * network)
                rows["rate"].append(reached)
                rows["share"].append(reached / rate)
                rows["loaded"].append(quantile(times, 0.99))
        finally:
            service.process.terminate()
            service.process.wait()
    print(f"an image of {len(image)} bytes, {cores} cores; median and range of {ROUNDS} rounds")
    print(f"network alone, ms: {spread(rows['network'])}")
    print(f"one client, p50 ms: {spread(rows['alone'])}; p99: {spread(rows['p99'])}; p50 above 1.2 of the network: {spread(rows['above'])}")
    print(f"{CLIENTS} clients, images a second: {spread(rows['rate'])}; of the batch rate: {spread(rows['share'])}; p99 ms: {spread(rows['loaded'])}")


main()
