"""One process's part of a load: it hands out arrivals to the users and notes what became of every request."""

from __future__ import annotations

import time
from array import array
from collections import Counter
from dataclasses import dataclass
from typing import Any

import gevent
import gevent.event
import gevent.queue
from clock import Alarm
from expected import Checker
from gevent.greenlet import Greenlet
from kept_answers import Answers
from payloads import PreparedRequest
from request_log import ANSWERED, FAILED, UNANSWERED, UNSENT
from schedule import Arrivals, planned, share

REPORT_S = 1.0
DRAIN_S = 10.0
"""After a phase, requests under way may still be answered; what comes later counts as unanswered."""
IDLE_POLL_S = 0.05


@dataclass(frozen=True)
class Arrival:
    """A request to send now: `due` is the planned moment, `queued` when it could be sent; clock of the process."""

    due: float
    queued: float
    model: str = ""


@dataclass(frozen=True)
class Flight:
    """A request under way."""

    arrival: Arrival
    sent: float
    model: int
    request: PreparedRequest
    phase: int


@dataclass(frozen=True)
class Landing:
    """What became of a request; `seconds` count from its planned arrival."""

    seconds: float
    error: Exception | None


class WrongAnswer(Exception):  # noqa: N818 - the word that Locust's page shows
    """The server answered, and not what it should."""


class NoAnswer(Exception):  # noqa: N818 - the word that Locust's page shows
    """In the client's words, which its own exceptions do not show where Locust prints them."""


class Generator:
    """The phases as the conductor names them; `send` takes what is told back to it."""

    def __init__(self, models: list[str], trace: Arrivals, timeout_s: float, send: Any) -> None:  # noqa: ANN401
        self.models, self.trace, self.timeout_s, self.send = models, trace, timeout_s, send
        self.gate = gevent.event.Event()
        self.queue: Any = gevent.queue.SimpleQueue()
        self.flights: dict[int, Flight] = {}
        self.log = array("d")
        self.failures: Counter[str] = Counter()
        self.answers: Answers | Checker = Answers()
        self.phase: dict[str, Any] = {"number": -1, "kind": "closed", "seconds": 0.0, "shape": "constant", "active": 0}
        self.started = self.cpu = 0.0
        self.sending = self.over = False
        self.jobs: list[Greenlet] = []

    def begin(self, phase: dict[str, Any]) -> None:
        """Start a phase now; `seconds` 0 never ends."""
        self.phase, self.started, self.cpu = phase, time.perf_counter(), time.process_time()
        self.sending = True
        if phase["kind"] == "open":
            self.jobs.append(gevent.spawn(self._dispatch, planned(phase, self.trace if phase["replay"] else [])))
        self.jobs.append(gevent.spawn(self._run_phase))
        self.gate.set()

    def _run_phase(self) -> None:
        phase, ends = self.phase, self.started + (self.phase["seconds"] or float("inf"))
        while (left := ends - time.perf_counter()) > 0 and not self.over:
            gevent.sleep(min(left, REPORT_S))
            self.report()
        self.gate.clear()
        self.sending = False
        cpu_s, elapsed = time.process_time() - self.cpu, time.perf_counter() - self.started
        self._drain(time.perf_counter() + min(self.timeout_s, phase["drain_s"]))
        self._settle()
        self.report()
        drained = time.perf_counter() - self.started - elapsed
        done = {"phase": phase["number"], "cpu_s": cpu_s, "elapsed_s": elapsed, "drain_s": drained}
        self.send("load_done", done)

    def _drain(self, limit: float) -> None:
        while (self.flights or not (self.over or self.queue.empty())) and time.perf_counter() < limit:
            gevent.sleep(0.01)

    def _settle(self) -> None:
        """What was not answered in time is noted as such; the answers that still come are not."""
        now = time.perf_counter()
        while not self.queue.empty():
            arrival = self.queue.get()
            if arrival is not None:
                self._note(Flight(arrival, now, -1, PreparedRequest((), 1), self.phase["number"]), now, UNSENT)
                self.failures["not sent: every connection was still waiting for an answer when the test ended"] += 1
        for flight in self.flights.values():
            self._note(flight, now, UNANSWERED)
            self.failures[f"not answered {now - flight.sent:.0f} s after it was sent, when the test ended"] += 1
        self.flights.clear()

    def _dispatch(self, arrivals: Any) -> None:  # noqa: ANN401 - an iterator
        alarm, number = Alarm(), self.phase["number"]
        try:
            for offset, model in arrivals:
                due = self.started + offset
                alarm.sleep_until(due)
                if not self.sending or self.phase["number"] != number:
                    return
                self.queue.put(Arrival(due, time.perf_counter(), model))
        finally:
            alarm.close()

    def next_arrival(self, number: int) -> Arrival | None:
        """What user `number` sends next, waited for; None when the load is over."""
        while not self.over:
            if self.phase["kind"] == "open":
                arrival: Arrival | None = self.queue.get()
                return arrival
            self.gate.wait()
            if self.sending and self.phase["kind"] == "closed":
                if self._active(number):
                    now = time.perf_counter()
                    only = self.phase.get("only", [""])
                    return Arrival(now, now, only[number % len(only)])
                gevent.sleep(IDLE_POLL_S)
        return None

    def _active(self, number: int) -> bool:
        """Whether a closed load wants this user now: all of them, or its share of the shape."""
        phase = self.phase
        place = (time.perf_counter() - self.started) / phase["seconds"] if phase["seconds"] else 1.0
        wanted = phase["active"] * share(phase["shape"], min(1.0, place))
        return number * phase["of"] + phase["index"] < wanted

    def take_off(self, number: int, arrival: Arrival, model: str, request: PreparedRequest) -> Flight:
        """User `number` sends now."""
        flight = Flight(arrival, time.perf_counter(), self.models.index(model), request, self.phase["number"])
        self.flights[number] = flight
        return flight

    def land(self, number: int, flight: Flight, error: Exception | None, answer: Any) -> Landing:  # noqa: ANN401
        """It ended: with an answer, which may be seen to be wrong, or with an error."""
        now = time.perf_counter()
        if self.flights.get(number) is flight:
            del self.flights[number]
            if error is None:
                text = self.answers.offer(self.models[flight.model], flight.request, answer)
                error = WrongAnswer(text) if text else None
            self._note(flight, now, FAILED if error else ANSWERED)
            if error is not None:
                self.failures[words_of(error)] += 1
        if error is not None and not isinstance(error, WrongAnswer):
            error = NoAnswer(words_of(error))
        return Landing(now - flight.arrival.due, error)

    def _note(self, flight: Flight, ended: float, outcome: float) -> None:
        start, arrival = self.started, flight.arrival
        rows = max(1, flight.request.rows)
        self.log.extend(
            (
                *(arrival.due - start, arrival.queued - start, flight.sent - start, ended - start),
                *(flight.model, rows, outcome, flight.phase),
            )
        )

    def report(self) -> None:
        """Tell the conductor what happened since the last time."""
        rows, self.log = self.log, array("d")
        failures, self.failures = self.failures, Counter()
        phase = self.phase["number"]
        told = {"phase": phase, "rows": rows.tobytes(), "failures": failures.most_common(), "waiting": self.waiting}
        self.send("load_log", told)

    @property
    def waiting(self) -> int:
        """Arrivals that found no free connection yet."""
        return int(self.queue.qsize())

    def stop(self, users: int) -> None:
        """No more requests; users that wait for one are let go."""
        self.over = True
        self.gate.set()
        for _ in range(users):
            self.queue.put(None)

    def finish(self, limit_s: float) -> None:
        """End early: what is under way is given a moment, then everything is told."""
        self.stop(0)
        self.sending = False
        self._drain(time.perf_counter() + limit_s)
        self._settle()
        self.report()


def words_of(error: Exception) -> str:
    """What it says, else what it is."""
    return str(error).strip() or type(error).__name__
