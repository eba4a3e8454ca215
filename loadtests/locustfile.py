"""Load on models of a Triton server, over gRPC or HTTP; works alone and under `build-repo loadtest`.

    locust -f loadtests/locustfile.py --headless -u 8 -r 8 -t 30s --host grpc://127.0.0.1:8001 --model classifier

Without --payload the requests are made from the server's metadata. With --rate the arrivals are planned beforehand and
a response time counts from the planned arrival, so a server that falls behind cannot hide it.
"""

from __future__ import annotations

import itertools
import json
import os
import secrets
import signal
import sys
import time
from argparse import ArgumentParser
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import gevent
import locust.stats
from locust import User, constant, events, task
from locust.env import Environment
from payloads import PreparedRequest, load_requests, request_inputs, rows_of, sequence_arguments, turned
from target import Target
from window import Window, counters

WINDOW = Window()
NUMBERS = itertools.count()
SEQUENCE_IDS = itertools.count(1 + secrets.randbelow(1 << 30))
BACK_OFF_S = (0.05, 0.1, 0.2, 0.5, 1.0)
EXIT_LIMIT_S = 20
STOP_S = 5
"""Users may finish the request under way: Triton before 24.12 can crash when a client breaks one off (server#7368)."""
PROGRESS_S = 2.0
PAYLOAD_BYTES = 256 << 20
STARTED_WRONG = 3

locust.stats.CSV_STATS_FLUSH_INTERVAL_SEC = 0


@events.init_command_line_parser.add_listener
def add_arguments(parser: ArgumentParser) -> None:
    """The words this file adds to Locust's own."""
    add = parser.add_argument
    add("--model", action="append", default=[], help="Model to call; several are called in turn")
    add("--payload", action="append", default=[], metavar="[MODEL=]FILE.npz", help="Arrays named like the inputs")
    add("--protocol", choices=["", "grpc", "http"], default="", help="Default: the scheme of --host")
    add("--rate", type=float, default=0.0, help="Arrivals per second of all users together; 0: as fast as answers come")
    add("--measure-s", type=float, default=0.0, help="Quit this many seconds after every user is ready")
    add("--summary", default="", metavar="FILE.json", help="Exact figures of the measured time")
    add("--request-timeout-s", type=float, default=30.0)
    add("--header", action="append", default=[], metavar="NAME:VALUE")
    add("--ca-file", default="")


@events.test_start.add_listener
def start(environment: Environment, **_: object) -> None:
    """Read the payloads once for all users."""
    options = environment.parsed_options
    environment.stop_timeout = max(environment.stop_timeout or 0, STOP_S)
    host = urlsplit(environment.host or options.host or "")
    protocol = options.protocol or ("http" if host.scheme.startswith("http") else "grpc")
    environment.requests = {}
    if not options.model or not host.netloc:
        fail(environment, "locustfile.py needs --model NAME and --host grpc://HOST:PORT")
        return
    if protocol == "grpc":
        import grpc.experimental.gevent

        grpc.experimental.gevent.init_gevent()
    environment.triton = Target(protocol, host.netloc, tls=host.scheme in ("https", "grpcs"), options=options)
    WINDOW.waits = options.measure_s > 0
    try:
        with environment.triton.client() as client:
            environment.requests = {
                model: load_requests(environment.triton, client, model, options.payload) for model in options.model
            }
    except Exception as error:
        fail(environment, f"{type(error).__name__}: {error}")


class TritonUser(User):
    """One client that sends its requests one after the other; everything is prepared before the clock runs."""

    wait_time = constant(0)

    def on_start(self) -> None:
        self.number = next(NUMBERS)
        self.client: Any = None
        self.failed = 0
        self.sequence_ids: dict[str, int] = {}
        target, options = self.environment.triton, self.environment.parsed_options
        try:
            self.client = target.client()
            self.arguments = target.arguments
            self.turns = itertools.cycle(self.prepared(target))
            for model in options.model:
                first = self.environment.requests[model][0]
                alone = replace(first, start=True, end=True) if first.in_sequence else first
                arguments = self.arguments | sequence_arguments(alone, next(SEQUENCE_IDS))
                self.client.infer(model, request_inputs(target.module, first), **arguments)
        except Exception as error:
            fail(self.environment, str(error) or type(error).__name__)
            gevent.sleep(EXIT_LIMIT_S)
        WINDOW.enter(self.environment, options.num_users, open_window)
        users = options.num_users or 1
        self.interval_s = users / options.rate if options.rate else 0.0
        self.due = time.perf_counter() + (self.number % users) * self.interval_s / users

    def prepared(self, target: Target) -> list[tuple[str, list[Any], PreparedRequest]]:
        """This user's share of the payloads as tritonclient's inputs, models in turn."""
        users = self.environment.parsed_options.num_users or 1
        lists = []
        for model, requests in self.environment.requests.items():
            size = max(sum(tensor.array.nbytes for tensor in request.tensors) for request in requests)
            count = min(len(requests), max(1, PAYLOAD_BYTES // users // max(1, size)))
            chosen = turned(requests, self.number, count)
            lists.append([(model, request_inputs(target.module, item), item) for item in chosen])
        longest = max(map(len, lists))
        return [turns[step % len(turns)] for step in range(longest) for turns in lists]

    @task
    def infer(self) -> None:
        model, inputs, request = next(self.turns)
        arguments = self.arguments
        if request.in_sequence:
            if request.start or model not in self.sequence_ids:
                self.sequence_ids[model] = next(SEQUENCE_IDS)
            arguments = arguments | sequence_arguments(request, self.sequence_ids[model])
        started = self.arrival()
        error = None
        try:
            self.client.infer(model, inputs, **arguments)
        except Exception as problem:
            error = problem
        seconds = time.perf_counter() - started
        self.environment.events.request.fire(
            request_type=self.environment.triton.protocol,
            name=model,
            response_time=seconds * 1000,
            response_length=0,
            exception=error,
            context={"rows": rows_of(request)},
        )
        WINDOW.add(seconds, rows_of(request), error)
        self.failed = self.failed + 1 if error else 0
        if error:
            gevent.sleep(BACK_OFF_S[min(self.failed, len(BACK_OFF_S)) - 1])

    def arrival(self) -> float:
        """The moment from which the response time counts: now, or the planned arrival of an open load."""
        now = time.perf_counter()
        if not self.interval_s:
            return now
        planned, self.due = self.due, self.due + self.interval_s
        if planned > now:
            gevent.sleep(planned - now)
            return time.perf_counter()
        return planned

    def on_stop(self) -> None:
        if self.client is not None:
            self.client.close()


def open_window(environment: Environment) -> None:
    """Every user is ready: forget the warm-up, measure, and quit."""
    options = environment.parsed_options
    models = list(environment.requests)
    environment.stats.reset_all()
    with environment.triton.client() as client:
        WINDOW.open(counters(client, environment.triton, models))
        deadline = time.perf_counter() + options.measure_s
        while (left := deadline - time.perf_counter()) > 0:
            gevent.sleep(min(PROGRESS_S, left))
            if options.summary:
                print("progress " + json.dumps(WINDOW.glance()), flush=True)
        WINDOW.close(counters(client, environment.triton, models))
    environment.runner.quit()


def fail(environment: Environment, text: str) -> None:
    """Nothing can be measured: remember why and end."""
    WINDOW.problem = WINDOW.problem or text
    environment.process_exit_code = STARTED_WRONG
    gevent.spawn(environment.runner.quit)


@events.quitting.add_listener
def quitting(environment: Environment, **_: object) -> None:
    """From here on the process ends whatever hangs; let the CSV writer see the last figures first."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(EXIT_LIMIT_S)
    if environment.parsed_options.csv_prefix:
        gevent.sleep(locust.stats.CSV_STATS_INTERVAL_SEC + 0.1)
    if environment.parsed_options.summary:
        WINDOW.write(Path(environment.parsed_options.summary))


@events.quit.add_listener
def leave(exit_code: int, **_: object) -> None:
    """Leave at once: gRPC under gevent can hang at the interpreter's end (seen with a client left open)."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)
