"""What is sent when: it starts phases on every worker, gathers their logs, and ends the test."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import gevent
import gevent.event
import numpy as np
from locust.env import Environment
from locust.runners import MasterRunner
from mix import given
from request_log import ANSWERED, COLUMNS, falls_behind, level_figures, table
from schedule import read_trace
from search import Level, held_rate, holds, missed_rate, next_rate

LEAD_S = 0.25
"""Between the word that a phase begins and its first request: who samples the server takes a reading."""
PROGRESS_S = 2.0
WORKER_LOST_S = 15.0
CALIBRATION_S = 2.0
CALIBRATION_USERS = 8
LEVELS = 14
LEVEL_S = (2.0, 6.0)
LEVEL_DRAIN_S = 2.0
CONFIRMATION = 1.5
"""The rate that was found is held once more, for so many levels' time."""
KEPT_UP = 0.85
"""Of the arrivals must be answered in time, else trying the rate again would change nothing."""
TRACE_END_S = 0.01
TEXTS_KEPT = 10


class Conductor:
    """Lives in the master, or in the only process."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.options = environment.parsed_options
        self.ready: set[str] = set()
        self.models: list[str] = []
        self.problem, self.asked = "", False
        self.parts: list[bytes] = []
        self.phases: list[dict[str, Any]] = []
        self.levels: list[Level] = []
        self.chosen = 0
        self.done: dict[str, dict[str, Any]] = {}
        self.failures: dict[int, Counter[str]] = {}
        self.waiting: dict[str, int] = {}
        self.counted = self.failed = 0
        self.begun = 0.0
        self.finished = False

    # Messages of the workers

    def on_ready(self, msg: Any, **_: object) -> None:  # noqa: ANN401
        self.ready.add(msg.node_id)
        self.models = msg.data["models"] or self.models
        if len(self.ready) == self.workers and not self.begun:
            self.begun = time.perf_counter()
            gevent.spawn(self.run)

    def on_problem(self, msg: Any, **_: object) -> None:  # noqa: ANN401
        self.note(msg.data["text"], asked=msg.data["asked"])
        gevent.spawn(self.environment.runner.quit)

    def note(self, text: str, *, asked: bool) -> None:
        """The first problem; `asked`: it lies in what the user asked for."""
        if not self.problem:
            self.problem, self.asked = text, asked

    def on_log(self, msg: Any, **_: object) -> None:  # noqa: ANN401
        rows, number = msg.data["rows"], msg.data["phase"]
        found = self.failures.setdefault(number, Counter())
        for text, count in msg.data["failures"]:
            found[text] += count
            self.failed += count
        if self.options.result:
            self.parts.append(rows)
        self.counted += len(rows) // 64
        self.waiting[msg.node_id] = msg.data["waiting"]

    def on_done(self, msg: Any, **_: object) -> None:  # noqa: ANN401
        self.done[msg.node_id] = msg.data

    # The course of the test

    @property
    def workers(self) -> int:
        runner = self.environment.runner
        return int(runner.worker_count) if isinstance(runner, MasterRunner) else 1

    def run(self) -> None:
        """Every user is ready: forget the warm-up, go through the phases, and quit; without an end it is one phase."""
        self.environment.stats.reset_all()
        try:
            if turns := given(self.options.turn):
                for text in turns:
                    self.turn(*text.rsplit("=", 2))
            elif self.options.load_shape == "step":
                self.search()
            else:
                self.phase(self.plan(self.options.rate, self.length()))
        except Exception as error:
            self.note(str(error) or type(error).__name__, asked=isinstance(error, ValueError))
        if self.options.measure_s or self.problem:
            self.finished = not self.problem
            self.environment.runner.quit()

    def turn(self, models: str, users: str, seconds: str) -> None:
        """Some models' turn: so many users that wait for their answers."""
        plan = {"active": int(users), "only": models.split(","), "drain_s": LEVEL_DRAIN_S}
        self.phase({**self.plan(0.0, float(seconds)), **plan})

    def length(self) -> float:
        """Seconds to measure: a trace may be shorter than the time that was given for it."""
        options = self.options
        if not options.measure_s or not options.replay:
            return float(options.measure_s)
        last, _ = read_trace(options.replay)[-1]
        return min(float(options.measure_s), last + TRACE_END_S)

    def plan(self, rate: float, seconds: float) -> dict[str, Any]:
        options = self.options
        open_load = bool(rate or options.replay)
        shape = options.load_shape if seconds and options.load_shape != "step" else "constant"
        return {
            "kind": "open" if open_load else "closed",
            "shape": shape,
            "rate": rate,
            "seconds": seconds,
            "poisson": options.arrivals == "poisson",
            "replay": bool(options.replay),
            "active": options.num_users or 1 << 30,
            "seed": 1 + len(self.phases),
            "drain_s": options.drain_s,
        }

    def phase(self, spec: dict[str, Any]) -> dict[str, Any]:
        """Have every worker run it; returns its record when all of them are through."""
        spec = {**spec, "number": len(self.phases), "began_s": time.perf_counter() - self.begun + LEAD_S}
        self.phases.append(spec)
        self.done = {}
        self.say("phase", number=spec["number"], rate=spec["rate"], seconds=spec["seconds"])
        gevent.sleep(LEAD_S)
        nodes = sorted(self.ready)
        for index, node in enumerate(nodes):
            self.environment.runner.send_message("load_phase", {**spec, "index": index, "of": len(nodes)}, node)
        self._wait(spec, len(nodes))
        parts = list(self.done.values())
        spec["elapsed_s"] = max((part["elapsed_s"] for part in parts), default=spec["seconds"])
        spec["drained_s"] = max((part["drain_s"] for part in parts), default=0.0)
        spec["cpu_s"] = [part["cpu_s"] for part in parts]
        spec["lost"] = len(nodes) - len(parts)
        self.say("phase_end", number=spec["number"])
        return spec

    def _wait(self, spec: dict[str, Any], nodes: int) -> None:
        limit = spec["seconds"] + spec["drain_s"] + WORKER_LOST_S if spec["seconds"] else float("inf")
        started = told = time.perf_counter()
        while len(self.done) < nodes and time.perf_counter() - started < limit:
            gevent.sleep(0.05)
            if time.perf_counter() - told >= PROGRESS_S:
                told = time.perf_counter()
                self.tell_progress(spec, told - started)

    def tell_progress(self, spec: dict[str, Any], elapsed: float) -> None:
        late = sum(self.waiting.values())
        self.say(
            "progress",
            elapsed_s=round(time.perf_counter() - self.begun, 1),
            phase_s=round(elapsed, 1),
            rate=spec["rate"],
            requests=self.counted - self.failed,
            failures=self.failed,
            waiting=late,
        )

    def search(self) -> None:
        """The highest rate that holds the SLO, in `measure_s` at most."""
        options = self.options
        limits = dict(parse_limit(text) for text in given(options.limit))
        ends = time.perf_counter() + options.measure_s
        level_s = min(LEVEL_S[1], max(LEVEL_S[0], options.measure_s / LEVELS))
        first = options.rate or self._calibrated()
        while first and ends - time.perf_counter() > CONFIRMATION * level_s + LEAD_S:
            rate, held = next_rate(self.levels, first), held_rate(self.levels)
            number = len(self.phases)
            if rate is not None:
                self._try(rate, level_s, limits)
            elif not held:
                break
            elif self._try(held, CONFIRMATION * level_s, limits):
                self.chosen = number
                return
        self.chosen = self._best()

    def _calibrated(self) -> float:
        """A first rate: what a few users that wait for their answers get."""
        spec = self.plan(0.0, CALIBRATION_S)
        done = self.phase({**spec, "kind": "closed", "active": CALIBRATION_USERS, "drain_s": LEVEL_DRAIN_S})
        return 0.8 * (self.counted - self.failed) / done["elapsed_s"]

    def _try(self, rate: float, seconds: float, limits: dict[str, float]) -> bool:
        done = self.phase({**self.plan(rate, seconds), "shape": "constant", "drain_s": LEVEL_DRAIN_S})
        rows = table(self.parts)
        rows = rows[rows[:, COLUMNS.index("phase")] == done["number"]]
        figures = level_figures(rows)
        drained_late = done["drained_s"] > max(0.1 * seconds, 2 * limits.get("p99", 0.0) / 1000)
        behind = drained_late or falls_behind(rows, done["elapsed_s"])
        held = holds(limits, figures) and not behind
        in_time = rows[:, COLUMNS.index("ended_s")] <= done["elapsed_s"]
        answered = ((rows[:, COLUMNS.index("outcome")] == ANSWERED) & in_time).sum()
        self.levels.append(Level(rate, held, clear=answered < KEPT_UP * rate * seconds))
        done |= {"held": held, "figures": figures, "behind": behind}
        p99 = figures.get("p99")
        self.say("level", rate=rate, held=held, p99_ms=p99, errors=figures["errors"], behind=behind)
        return held

    def _best(self) -> int:
        """The phase of the best level; of the last one where none held."""
        best = held_rate(self.levels)
        numbers = [spec["number"] for spec in self.phases if spec.get("held") and spec["rate"] == best]
        return numbers[-1] if numbers else len(self.phases) - 1

    # What is left of it

    def say(self, what: str, **more: object) -> None:
        """One line for the program that started this one."""
        if self.options.result:
            print("told " + json.dumps({"what": what, **more}), flush=True)

    def write(self, folder: Path) -> None:
        """`run.json` and `log.npz`."""
        missed = missed_rate(self.levels)
        for spec in self.phases:
            texts = self.failures.get(spec["number"], Counter())
            spec["failures"] = texts.most_common(TEXTS_KEPT)
            if "elapsed_s" not in spec:
                running = time.perf_counter() - self.begun - spec["began_s"]
                spec |= {"elapsed_s": max(0.0, running), "drained_s": 0.0, "cpu_s": [], "lost": 0}
        run = {
            "problem": self.problem,
            "asked": self.asked,
            "finished": self.finished,
            "models": self.models,
            "phases": self.phases,
            "chosen": self.chosen if self.finished else max(0, len(self.phases) - 1),
            "held_rate": held_rate(self.levels) if self.levels else None,
            "missed_rate": None if missed == float("inf") else missed,
            "workers": len(self.ready),
        }
        np.savez(folder / "log.npz", rows=table(self.parts))
        (folder / "run.json").write_text(json.dumps(run), encoding="utf-8")


def parse_limit(text: str) -> tuple[str, float]:
    """`p99=50` (ms), `errors=0` (%)."""
    name, _, value = text.partition("=")
    return name, float(value)
