#!/usr/bin/env python3
"""A service under slow and many clients, beside an ordinary one: bench/load.sh runs it.

Starts `rehead up` with three tenants, and plays, from processes of its own: 2,000 slow connections of five kinds, 1,000 event
streams, 100 tenants at their limits. Meanwhile an ordinary client asks for a list, and its times are printed beside those of a
quiet service in the same run. Everything listens on loopback. Needs nothing but Python 3.
"""

import asyncio
import http.client
import json
import os
import pathlib
import random
import sys
import tempfile
import threading
import time
import urllib.parse

from service import Service

SLOW_EACH = 400
STREAMS = 1_000
TENANTS = 100
REQUESTS_PER_MINUTE = 30
ROUNDS = 400
WRONG_KEYS = 10_000


def ordinary(service, key, reconnect):
    """Times of an ordinary client's requests in milliseconds, sorted, and how many failed."""
    times, failed, connection = [], 0, None
    for _ in range(ROUNDS):
        started = time.perf_counter()
        try:
            if connection is None or reconnect:
                connection = http.client.HTTPConnection(service.host, service.port, timeout=10)
            connection.request("GET", "/v1/files", headers={"authorization": f"Bearer {key}"})
            response = connection.getresponse()
            response.read()
            failed += response.status != 200
        except (OSError, http.client.HTTPException):
            failed, connection = failed + 1, None
        times.append((time.perf_counter() - started) * 1000)
        time.sleep(0.01)
    return sorted(times), failed


def measure(service, key, what):
    """Prints the times of ordinary clients, in a process of their own, and the server's memory."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        results = [ordinary(service, key, reconnect) for reconnect in (False, True)]
        os.write(writer, json.dumps(results).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        results = json.load(pipe)
    os.waitpid(child, 0)
    for name, (times, failed) in zip(["one connection", "a connection each"], results):
        at = lambda share: times[min(len(times) - 1, int(len(times) * share))]
        print(f"{what}, {name}: p50 {at(0.5):.1f} ms, p99 {at(0.99):.1f} ms, {failed} of {len(times)} failed; "
              f"server {service.memory():.0f} MiB", flush=True)


class Crowd:
    """Connections that a thread holds open, each playing its part until the server closes it."""

    def __init__(self, service):
        self.service, self.open, self.answered = service, 0, 0
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    def add(self, count, play):
        for _ in range(count):
            asyncio.run_coroutine_threadsafe(self.hold(play), self.loop)

    async def hold(self, play):
        try:
            reader, writer = await asyncio.open_connection(self.service.host, self.service.port, limit=1 << 12)
        except OSError:
            return
        self.open += 1
        try:
            await play(self, reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        self.open -= 1
        writer.close()

    def after(self, seconds):
        time.sleep(seconds)
        return self.open


def head(method, path, key, *more):
    lines = [f"{method} {path} HTTP/1.1", "host: localhost", f"authorization: Bearer {key}", *more, "", ""]
    return "\r\n".join(lines).encode()


def trickle(start, byte):
    """Sends `start`, then a byte every three seconds, out of step with the others."""
    async def play(_crowd, reader, writer):
        writer.write(start)
        answer = asyncio.ensure_future(reader.read(1))
        await asyncio.wait([answer], timeout=random.uniform(0, 3))
        while not answer.done():
            writer.write(byte)
            await writer.drain()
            await asyncio.wait([answer], timeout=3)
    return play


def never_reads(start):
    async def play(_crowd, reader, writer):
        writer.transport.pause_reading()
        writer.write(start)
        while not writer.transport.is_closing():
            await asyncio.sleep(3)
            writer.write(b"\r\n")
    return play


def idles(start):
    async def play(_crowd, reader, writer):
        writer.write(start)
        while await reader.read(1 << 12):
            pass
    return play


def follows(start):
    async def play(crowd, reader, writer):
        writer.write(start)
        status = await reader.readline()
        crowd.answered += status.startswith(b"HTTP/1.1 200")
        while await reader.read(1 << 12):
            pass
    return play


def slow_connections(service, key, model, big):
    form = ["content-type: multipart/form-data; boundary=x", "content-length: 100000"]
    part = b'--x\r\ncontent-disposition: form-data; name="%s"; filename="a.png"\r\n\r\n'
    predict = f"/v1/models/{urllib.parse.quote(model)}/predict"
    kinds = {
        "slow headers": trickle(b"GET /v1/files HTTP/1.1\r\nhost: localhost\r\nx-a: ", b"a"),
        "slow body": trickle(head("POST", "/v1/files", key, *form) + part % b"file", b"a"),
        "never reading": never_reads(head("GET", f"/v1/files/{big}/content", key)),
        "idle": idles(head("GET", "/healthz", key)),
        "slow predict form": trickle(head("POST", predict, key, *form) + part % b"image", b"a"),
    }
    crowd = Crowd(service)
    for play in kinds.values():
        crowd.add(SLOW_EACH, play)
    print(f"{len(kinds)} kinds of slow clients, {crowd.after(5)} of {SLOW_EACH * len(kinds)} connections are open")
    measure(service, key, "beside slow clients")
    print(f"a minute later, {crowd.after(60)} of them are open")


def event_streams(service, keys, jobs):
    crowd = Crowd(service)
    for at in range(STREAMS):
        key, job = keys[at % len(keys)], jobs[at % len(jobs)]
        path = f"/v1/fine_tuning/jobs/{job}/events"
        crowd.add(1, follows(head("GET", path, key, "accept: text/event-stream")))
    crowd.after(10)
    print(f"{crowd.answered} of {STREAMS} event streams of {len(keys)} tenants are open")
    measure(service, keys[0], "beside event streams")


def limits(service):
    keys = [service.key(f"tenant-{at}", "--requests-per-minute", str(REQUESTS_PER_MINUTE)) for at in range(TENANTS)]
    counts = {}
    threads = []

    def ask(key):
        connection = http.client.HTTPConnection(service.host, service.port, timeout=60)
        passed = 0
        for _ in range(2 * REQUESTS_PER_MINUTE):
            connection.request("GET", "/v1/files", headers={"authorization": f"Bearer {key}"})
            response = connection.getresponse()
            response.read()
            passed += response.status == 200
        counts[key] = passed

    started = time.perf_counter()
    for key in keys:
        threads.append(threading.Thread(target=ask, args=[key]))
        threads[-1].start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - started
    passed = sorted(counts.values())
    refilled = REQUESTS_PER_MINUTE * took / 60
    print(f"{TENANTS} tenants, {2 * REQUESTS_PER_MINUTE} requests each in {took:.1f} s: {passed[0]} to {passed[-1]} passed, where "
          f"the limit is {REQUESTS_PER_MINUTE} and {refilled:.1f} more in that time")
    assert REQUESTS_PER_MINUTE <= passed[0] and passed[-1] <= REQUESTS_PER_MINUTE + refilled + 1


def wrong_keys(service, key):
    """How well the time of a refusal tells a key with a known id from one with an unknown id: the
    area under the ROC curve, 0.5 for not at all. They take turns in random order."""
    prefix, secret = key.rsplit("_", 1)
    wrong = f"{prefix}_{'0' * len(secret)}"
    kinds = {"unknown": wrong.replace(prefix, "rh_" + "0" * (len(prefix) - 3)), "known": wrong}
    connection = http.client.HTTPConnection(service.host, service.port, timeout=60)
    times = []
    for at in range(WRONG_KEYS + 500):
        for kind in random.sample(list(kinds), 2):
            started = time.perf_counter()
            connection.request("GET", "/v1/files", headers={"authorization": f"Bearer {kinds[kind]}"})
            response = connection.getresponse()
            response.read()
            assert response.status == 401, response.status
            if at >= 500:
                times.append((time.perf_counter() - started, kind))
    ranks = [rank for rank, (_, kind) in enumerate(sorted(times), 1) if kind == "known"]
    area = (sum(ranks) - WRONG_KEYS * (WRONG_KEYS + 1) / 2) / WRONG_KEYS**2
    median = lambda wanted: sorted(seconds for seconds, kind in times if kind == wanted)[WRONG_KEYS // 2] * 1000
    print(f"{WRONG_KEYS} wrong keys each: known id {median('known'):.3f} ms, unknown {median('unknown'):.3f} ms, area {area:.3f}")


def main():
    rehead, demo = sys.argv[1], pathlib.Path(sys.argv[2])
    with tempfile.TemporaryDirectory(prefix="rehead-bench-") as folder:
        os.chmod(folder, 0o711)
        service = Service(rehead, folder)
        try:
            keys = [service.key(f"team-{at}", "--role", "admin") for at in range(3)]
            big = service.upload(keys[0], "big.pth", "weights", bytes(64 << 20))
            bodies = [service.bring(key, demo) for key in keys]
            model = service.model(keys[0], bodies[0])
            jobs = [service.paused(key, body) for key, body in zip(keys, bodies)]
            measure(service, keys[1], "quiet")
            slow_connections(service, keys[0], model, big)
            event_streams(service, keys, jobs)
            limits(service)
            wrong_keys(service, keys[0])
            measure(service, keys[1], "quiet again")
        finally:
            service.process.terminate()
            service.process.wait()


main()
