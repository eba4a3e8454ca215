"""Load on the models of a Triton server, over gRPC or HTTP; works alone and under `build-repo loadtest`.

    locust -f loadtests/locustfile.py --host grpc://127.0.0.1:8001          and open Locust's web page
    locust -f loadtests/locustfile.py --headless -u 8 -r 8 -t 30s --host http://127.0.0.1:8000 --mix classifier

Requests are the samples of --payload or of a --repository that build-repo made, else they are made from the server's
metadata. Where the right answers are known, a wrong one counts as a failure. With --rate or --replay arrivals are
planned beforehand and a response time counts from the planned arrival, so a server that falls behind cannot hide it;
users are then connections. It runs distributed by Locust's own --master and --worker.
"""

from __future__ import annotations

import itertools
import logging
import os
import secrets
import shutil
import signal
import sys
from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import gevent
import locust.stats
from conductor import Conductor
from expected import Checker
from generator import Generator
from locust import User, constant, events, task
from locust.env import Environment
from locust.exception import StopUser
from locust.runners import MasterRunner, WorkerRunner
from mix import Part, Turns, given, parse_part
from payloads import PreparedRequest, made_up, request_inputs, sequence_arguments, served, size_of, turned
from schedule import SHAPES, read_trace
from stored import bounds_of, read_payload, stored_answers, stored_requests
from target import Target

SEQUENCE_IDS = itertools.count(1 + secrets.randbelow(1 << 30))
BACK_OFF_S = (0.05, 0.1, 0.2, 0.5, 1.0)
EXIT_LIMIT_S = 20
STOP_S = 5
"""Users may finish the request under way: Triton before 24.12 can crash when a client breaks one off (server#7368)."""
LAST_ANSWERS_S = 2.0
PAYLOAD_BYTES = 256 << 20
WARMED = 8
"""So many users send a request before the clock runs; the others only open their connection."""
STARTED_WRONG = 3
ENVIRONMENTS: list[Environment] = []
"""The one of this process: not every event of Locust names it."""

locust.stats.CSV_STATS_FLUSH_INTERVAL_SEC = 0


@events.init_command_line_parser.add_listener
def add_arguments(parser: ArgumentParser) -> None:
    """The words this file adds to Locust's own."""
    add = parser.add_argument
    hidden: dict[str, Any] = {"include_in_web_ui": False}
    several: dict[str, Any] = {"action": "append", "default": [""]}
    add("--mix", **several, metavar="NAME[@ROWS][=WEIGHT]", help="What is called; default: all models")
    add("--payload", **several, metavar="[MODEL=]FILE.npz", help="Arrays named like the inputs")
    add("--repository", default="", help="A repository made by build-repo, whose samples are sent")
    add("--protocol", choices=["", "grpc", "http"], default="", help="Default: the scheme of --host")
    add("--rate", type=float, default=0.0, help="Arrivals per second of all users together; 0: as fast as answers come")
    add("--arrivals", choices=["even", "poisson"], default="even", help="How arrivals of --rate are spaced")
    add("--load-shape", choices=SHAPES, default="constant", help="The load over the time of --measure-s")
    add("--turn", **several, metavar="MODEL,…=USERS=SECONDS", help="Loads one after the other", **hidden)
    add("--replay", default="", metavar="FILE", help="A trace of arrival times, CSV or JSON")
    add("--measure-s", type=float, default=0.0, help="Quit this many seconds after every user is ready")
    add("--drain-s", type=float, default=10.0, help="How long the last requests may take after that")
    add("--limit", **several, metavar="p99=MS", help="What --load-shape step must hold")
    add("--result", default="", metavar="FOLDER", help="The raw log of the measured time, for build-repo", **hidden)
    add("--request-timeout-s", type=float, default=30.0)
    add(
        "--compare-per-s",
        type=float,
        default=10.0,
        help="Answers of a process compared with the expected ones; 0: none",
    )
    add(
        "--max-relative-error", type=float, default=None, help="Of an answer; default: the repository's gate, else 0.01"
    )
    # A secret often: it is not shown on Locust's page, and a file keeps it out of the list of processes.
    add("--header", action="append", default=[], metavar="NAME:VALUE", help="Sent with every request", **hidden)
    add("--header-file", default="", metavar="FILE", help="The same, one in each line", **hidden)
    add("--ca-file", default="")


@events.init.add_listener
def connect(environment: Environment, **_: object) -> None:
    """What master and workers tell each other; the only process tells itself."""
    runner = environment.runner
    environment.generator = environment.conductor = None
    if runner is None:
        return
    ENVIRONMENTS.append(environment)
    if environment.parsed_options.result:
        gevent.spawn(end_with_parent, environment, os.getppid())
    if not isinstance(runner, WorkerRunner):
        for word in ("ready", "problem", "log", "done"):
            runner.register_message(f"load_{word}", lambda word=word, **told: hear(environment, word, told))
    if not isinstance(runner, MasterRunner):
        runner.register_message("load_phase", lambda msg, **_: environment.generator.begin(msg.data))


def end_with_parent(environment: Environment, parent: int) -> None:
    """build-repo was killed: nobody reads what is measured any more, and nobody else clears its folder away."""
    while os.getppid() == parent:
        gevent.sleep(1.0)
    shutil.rmtree(environment.parsed_options.result, ignore_errors=True)
    environment.parsed_options.result = ""
    environment.runner.quit()


def hear(environment: Environment, word: str, told: dict[str, Any]) -> None:
    """A worker's message, for the conductor of the test that runs."""
    if environment.conductor is not None:
        getattr(environment.conductor, f"on_{word}")(**told)


@events.test_start.add_listener
def start(environment: Environment, **_: object) -> None:
    """Each process gets its part; the payloads are read once for all users."""
    runner, options = environment.runner, environment.parsed_options
    environment.stop_timeout = max(environment.stop_timeout or 0, STOP_S)
    environment.users_ready, environment.users_wanted, environment.told_ready = itertools.count(1), None, False
    environment.ready_count = 0
    environment.generator = None
    if not isinstance(runner, WorkerRunner):
        environment.conductor = Conductor(environment)
    if isinstance(runner, MasterRunner):
        return
    try:
        environment.triton = target_of(environment.host or options.host or "", options)
        prepare(environment)
    except Exception as error:
        fail(environment, error)


def target_of(url: str, options: Namespace) -> Target:
    """Where the requests go."""
    host = urlsplit(url)
    protocol = options.protocol or ("http" if host.scheme.startswith("http") else "grpc")
    if not host.netloc:
        raise ValueError("--host http://HOST:PORT or grpc://HOST:PORT is needed")
    if protocol == "grpc":
        import grpc.experimental.gevent

        grpc.experimental.gevent.init_gevent()
    return Target(protocol, host.netloc, tls=host.scheme in ("https", "grpcs"), options=options)


def prepare(environment: Environment) -> None:
    """Parts of the mix and their requests."""
    options, target = environment.parsed_options, environment.triton
    trace = read_trace(options.replay) if options.replay else []
    with target.client() as client:
        parts = [parse_part(text) for text in given(options.mix)] or [
            Part(name, 0, 1.0) for name in target.ready_models(client)
        ]
        environment.models = list(dict.fromkeys(part.model for part in parts))
        outputs, expected = {}, {}
        environment.parts, environment.requests = parts, {}
        for part in parts:
            model = served(target, client, part.model)
            arrays = read_payload(part.model, given(options.payload), options.repository)
            if arrays is None:
                environment.requests[part.key] = made_up(target, client, model, part.rows)
            else:
                environment.requests[part.key] = stored_requests(model, arrays, part.rows)
                outputs[part.model] = model.outputs
                # Locust's page gives an empty text where nothing was given.
                error = None if options.max_relative_error in (None, "") else float(options.max_relative_error)
                bounds = bounds_of(part.model, options.repository, error)
                if right := stored_answers(model, arrays, bounds):
                    expected[part.model] = right
    environment.generator = Generator(
        environment.models, trace, options.request_timeout_s, environment.runner.send_message
    )
    if options.result:
        environment.generator.answers.outputs = outputs
    else:
        environment.generator.answers = Checker(expected, options.compare_per_s)


@events.spawning_complete.add_listener
def spawned(user_count: int, **_: object) -> None:  # noqa: ARG001 - the users of all workers together
    """A worker waits for its own users only."""
    for environment in ENVIRONMENTS:
        environment.users_wanted = environment.runner.user_count
        tell_ready(environment)


def tell_ready(environment: Environment) -> None:
    """Once, when all users of this process have been spawned and are ready."""
    if isinstance(environment.runner, MasterRunner) or environment.told_ready or environment.users_wanted is None:
        return
    if environment.ready_count >= environment.users_wanted:
        environment.told_ready = True
        environment.runner.send_message("load_ready", {"models": getattr(environment, "models", [])})


class TritonUser(User):
    """One client that sends its requests one after the other; everything is prepared before the clock runs."""

    wait_time = constant(0)

    def on_start(self) -> None:
        environment = self.environment
        self.number = next(environment.users_ready) - 1
        self.client: Any = None
        self.failed = 0
        self.sequence_ids: dict[str, int] = {}
        self.generator: Generator | None = environment.generator
        if self.generator is None:
            gevent.sleep(EXIT_LIMIT_S)
            return
        target = environment.triton
        try:
            self.client = target.client()
            self.turns = Turns(environment.parts, self.prepared(target), self.number)
            self.warm(target)
        except Exception as error:
            fail(environment, error)
            gevent.sleep(EXIT_LIMIT_S)
        environment.ready_count += 1
        tell_ready(environment)

    def warm(self, target: Target) -> None:
        """Open the connection; the first users ask every model once."""
        if self.number >= WARMED:
            self.client.is_server_live(**target.arguments)
            return
        for part in self.environment.parts:
            first = self.environment.requests[part.key][0]
            alone = replace(first, start=True, end=True) if first.in_sequence else first
            arguments = target.arguments | sequence_arguments(alone, next(SEQUENCE_IDS))
            self.client.infer(part.model, request_inputs(target.module, first), **arguments)

    def prepared(self, target: Target) -> dict[str, list[tuple[str, list[Any], PreparedRequest]]]:
        """This user's share of the payloads as tritonclient's inputs."""
        users = max(1, self.environment.parsed_options.num_users or 1)
        found = {}
        for part in self.environment.parts:
            requests = self.environment.requests[part.key]
            size = max(map(size_of, requests))
            count = min(len(requests), max(1, PAYLOAD_BYTES // users // max(1, size)))
            chosen = turned(requests, self.number, count)
            found[part.key] = [(part.model, request_inputs(target.module, item), item) for item in chosen]
        return found

    @task
    def infer(self) -> None:
        generator = self.generator
        arrival = generator.next_arrival(self.number) if generator else None
        if generator is None or arrival is None:
            raise StopUser
        model, inputs, request = self.turns.next(arrival.model)
        arguments = self.environment.triton.arguments
        if request.in_sequence:
            if request.start or model not in self.sequence_ids:
                self.sequence_ids[model] = next(SEQUENCE_IDS)
            arguments = arguments | sequence_arguments(request, self.sequence_ids[model])
        error = answer = None
        flight = generator.take_off(self.number, arrival, model, request)
        try:
            answer = self.client.infer(model, inputs, **arguments)
        except Exception as problem:
            error = problem
        landing = generator.land(self.number, flight, error, answer)
        self.environment.events.request.fire(
            request_type=self.environment.triton.protocol,
            name=model,
            response_time=landing.seconds * 1000,
            response_length=0,
            exception=landing.error,
            context={},
        )
        self.failed = self.failed + 1 if error else 0
        if error and generator.phase["kind"] == "closed":
            gevent.sleep(BACK_OFF_S[min(self.failed, len(BACK_OFF_S)) - 1])

    def on_stop(self) -> None:
        if self.client is not None:
            self.client.close()


def fail(environment: Environment, error: Exception) -> None:
    """Nothing can be measured: say why and end. A ValueError is what the user asked for, all else the server's."""
    text = str(error) or type(error).__name__
    logging.getLogger("loadtest").error("the load test cannot start: %s", text)
    environment.process_exit_code = STARTED_WRONG
    environment.runner.send_message("load_problem", {"text": text, "asked": isinstance(error, ValueError)})


@events.test_stopping.add_listener
def stopping(environment: Environment, **_: object) -> None:
    """Users that wait for their next arrival need not be waited for."""
    if environment.generator is not None:
        environment.generator.stop(environment.runner.user_count)


@events.quitting.add_listener
def quitting(environment: Environment, **_: object) -> None:
    """From here on the process ends whatever hangs; let the CSV writer see the last figures first."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(EXIT_LIMIT_S)
    options, folder = environment.parsed_options, Path(environment.parsed_options.result)
    if environment.generator is not None:
        environment.generator.finish(LAST_ANSWERS_S)
        answers = environment.generator.answers
        if options.result:
            answers.write(folder / f"answers-{os.getpid()}.npz")
        elif answers.expected:
            text = "%d answers were compared with the expected ones, %d are wrong"
            logging.getLogger("loadtest").info(text, answers.compared, answers.wrong)
    if options.csv_prefix and not isinstance(environment.runner, WorkerRunner):
        gevent.sleep(locust.stats.CSV_STATS_INTERVAL_SEC + 0.1)
    if options.result and environment.conductor is not None:
        environment.conductor.write(folder)


@events.quit.add_listener
def leave(exit_code: int, **_: object) -> None:
    """Leave at once: gRPC under gevent can hang at the interpreter's end (seen with a client left open)."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)
