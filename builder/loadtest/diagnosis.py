"""What limits throughput and what to change: each finding decided by a pure function over the measured numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from builder.findings import Finding
from builder.loadtest.batching import batching_finding
from builder.loadtest.evidence import FULL, WANTS, Evidence
from builder.loadtest.records import ModelFigures

LEAST: Final = 20
"""Requests below which nothing is said of limits: a few of them come out so by chance."""
GENERATOR_BUSY: Final = 0.85
"""Share of one core from which a process of the generator, which cannot use two, is the limit."""
GENERATOR_LATE: Final = 0.05
GENERATOR_LATE_LEAST: Final = 5
"""Late requests below which it may be chance, whatever their share."""
OTHERS: Final = 0.2
"""Share of the machine that other programs may take unnoticed."""
IN_LINE: Final = 0.25
"""Of the time that a request is computed for, what the server may stand in line for a core, or be held back."""
QUEUED: Final = 0.5
"""Share of the time in the server that is queue, from which it is worth a word."""
QUEUE_LENGTH: Final = 0.5
QUEUE_MS: Final = 2.0
"""A queue has at least so many requests on average, or holds each up for so long: an idle server hands over too."""
OUTSIDE: Final = 0.5
OUTSIDE_MS: Final = 2.0
BEHIND: Final = 0.95
GROWTH: Final = 1.5
GROWTH_BYTES: Final = 100 << 20
CACHED: Final = 0.2
GPU_BUSY: Final = 0.85


Rule = Callable[[Evidence], Finding | None]


def diagnose(evidence: Evidence) -> tuple[Finding, ...]:
    """Every rule's word; where nothing limits, that. A server that hangs or is gone has no limit: only that is said."""
    if evidence.broken_off:
        return tuple(finding for finding in (_broken_off(evidence), memory_grows(evidence)) if finding)
    if evidence.silent_s:
        return (_silent(evidence),)
    enough = evidence.answered >= LEAST
    found = [finding for rule in (RULES if enough else FACTS) if (finding := rule(evidence)) is not None]
    if not enough:
        found.append(_too_few(evidence, known=any(finding.check.startswith("limit.") for finding in found)))
    elif not any(finding.check.startswith("limit.") for finding in found):
        found += [finding for finding in (_no_limit(evidence),) if finding]
    return tuple(found)


def _silent(evidence: Evidence) -> Finding:
    text = (
        f"the server stopped answering: nothing came back in the last {evidence.silent_s:.1f} s, while requests waited"
    )
    return _warning("server.silent", text, "see what the model waits for, and the server's log")


def _broken_off(evidence: Evidence) -> Finding:
    text = f"nothing is said of limits, since the test ended before its time: {evidence.broken_off.splitlines()[0]}"
    return _warning("limit.unknown", text, "see the server's log, and run the test again")


def _too_few(evidence: Evidence, *, known: bool) -> Finding:
    """`known`: something limits that few answers show too."""
    text = (
        f"only {evidence.answered} requests were answered: too few to say what {'else ' * known}limits, {LEAST} are "
        "needed; the high percentiles are those of the slowest one"
    )
    seconds = math.ceil(1.5 * LEAST / evidence.answered_per_s) if evidence.answered_per_s else 0
    longer = f"--duration {seconds}s" if seconds else "a longer --duration"
    return Finding("info", "limit.unknown", text, remedy=f"{longer}, more users or a higher rate, or a longer trace")


def generator_limit(evidence: Evidence) -> Finding | None:
    """The generator has no CPU left, or sends late by itself."""
    enough = evidence.late.generator >= GENERATOR_LATE_LEAST
    late = evidence.late.generator / evidence.late.planned if enough else 0.0
    if evidence.busiest_generator < GENERATOR_BUSY and late < GENERATOR_LATE:
        return None
    machine = evidence.machine
    hindered = _others_fill(evidence) and machine.other_cores > machine.generator_cores
    if evidence.busiest_generator < GENERATOR_BUSY and hindered:
        text = f"other programs keep the CPU from the load generator: it sent {late:.0%} of the requests late by itself"
        remedy = "stop the other programs, or run it on another machine"
        return _warning("limit.generator", f"{text}, and the latencies count that", remedy)
    reason = f"a process of it used {evidence.busiest_generator:.2f} of the one core it can use"
    if late >= GENERATOR_LATE:
        reason = f"it sent {late:.0%} of the requests late by itself"
    text = f"the load generator, not the server, is the limit: {reason}, so these figures are too low"
    room = "run it on another machine: this one has no CPU left" if evidence.busy >= FULL else "add --workers"
    return _warning("limit.generator", text, room)


def _others_fill(evidence: Evidence) -> bool:
    """No core is free, and other programs have their part in that."""
    return evidence.busy >= FULL and evidence.machine.other_cores >= OTHERS * evidence.machine.cores


def cpu_taken(evidence: Evidence) -> Finding | None:
    """Other programs, the hypervisor, or a limit keep the CPU from the server."""
    machine = evidence.machine
    if machine.server_cores is None:
        return None
    allowed = machine.server_allowed or float(machine.cores)
    if allowed < FULL * machine.cores and machine.server_cores >= FULL * 0.9 * allowed:
        text = f"the server is starved of CPU: it may use {allowed:.2f} of {machine.cores} cores and uses them all"
        return _warning("limit.cpu_starved", text, "raise the container's or the affinity's limit of the server's CPUs")
    model = evidence.slowest
    if model and evidence.held_back_ms >= IN_LINE * model.compute_ms:
        text = (
            f"the server is starved of CPU in bursts: it uses {machine.server_cores:.2f} of the {allowed:.2f} cores "
            f"that it may, but that limit held its threads back for {evidence.held_back_ms:.1f} ms of each request"
        )
        return _warning("limit.cpu_starved", text, "raise the container's CPU limit, or give the model fewer threads")
    in_line = evidence.in_line_ms >= IN_LINE * model.compute_ms if model else False
    if not in_line or not evidence.cpu_bound or not _others_fill(evidence):
        return None
    text = (
        f"the server is starved of CPU: other programs take {machine.other_cores:.1f} of {machine.cores} cores, the "
        f"server gets {machine.server_cores:.2f} and stands in line for {evidence.in_line_ms:.2f} ms of each request"
    )
    return _warning("limit.cpu_starved", text, "stop the other programs, or give the server a machine of its own")


def queueing(evidence: Evidence) -> Finding | None:
    """Requests wait in the server more than they are worked on."""
    model = evidence.slowest
    if model is None or not model.queue_ms:
        return None
    share = model.queue_ms / (model.queue_ms + model.compute_ms)
    waiting = evidence.rate_of(model) * model.queue_ms / 1000
    if share < QUEUED or (waiting < QUEUE_LENGTH and model.queue_ms < QUEUE_MS):
        return None
    text = f"queue time is {share:.0%} of the time that requests spend in model {model.name}"
    delay_ms = model.queue_delay_us / 1000
    if delay_ms and delay_ms >= QUEUED * model.queue_ms:
        text += f": they wait on purpose, max_queue_delay_microseconds is {model.queue_delay_us}"
        return _warning("limit.queue_delay", text, "lower max_queue_delay_microseconds", model.name)
    if cpu_taken(evidence):
        return None  # then they wait for the CPU that the server does not get
    return _queue_by_cpu(evidence, model, text)


def _queue_by_cpu(evidence: Evidence, model: ModelFigures, text: str) -> Finding:
    if evidence.gpu is not None and evidence.gpu >= GPU_BUSY:
        text += f" and the GPU is at {evidence.gpu:.0%}: more instances will not help"
        return _warning("limit.gpu", text, "a lower precision, a larger batch, or another GPU", model.name)
    if evidence.machine.server_cores is None:
        text += "; the server's CPU was not measured, since it runs elsewhere"
        return _warning("limit.queue", text, "if its CPU is idle: more instances; else a faster target", model.name)
    if evidence.cpu_bound:
        text += f" and the CPU is at {evidence.busy:.0%}: more instances will not help"
        remedy = "a faster target or lower precision, larger batches, or more cores"
        return _warning("limit.cpu", text, remedy, model.name)
    count = f"its {model.instances} instances are" if model.instances > 1 else "its one instance is"
    text += f" while the server uses {evidence.machine.server_cores:.2f} cores: {count} the limit"
    remedy = f"more of them: instances: {{count: {2 * max(1, model.instances)}}}, or larger batches"
    return _warning("limit.instances", text, remedy, model.name)


def cpu_used_up(evidence: Evidence) -> Finding | None:
    """Little queue, but no core left: a closed load waits for computing."""
    model, machine = evidence.slowest, evidence.machine
    if machine.server_cores is None or not evidence.cpu_bound or _others_fill(evidence):
        return None
    if model is None or model.queue_ms > model.compute_ms:
        return None
    text = (
        f"the CPU is at {evidence.busy:.0%} ({machine.server_cores:.1f} cores the server, "
        f"{machine.generator_cores:.1f} the load generator): more users or instances will not raise the throughput"
    )
    return _warning("limit.cpu", text, "a faster target or lower precision, larger batches, or more cores", model.name)


def model_waits(evidence: Evidence) -> Finding | None:
    """Requests are being computed while no CPU is used: the model sleeps, or waits for something else."""
    model, machine = evidence.slowest, evidence.machine
    if model is None or machine.server_cores is None or evidence.gpu is not None:
        return None
    if model.compute_ms < OUTSIDE_MS:
        return None
    computing = evidence.computing
    if computing < FULL or evidence.wanted_cores >= WANTS * min(computing, machine.cores):
        return None
    text = (
        f"model {model.name} computes {computing:.1f} runs at once on {machine.server_cores:.2f} cores: it waits for "
        "something that is no CPU (a lock, the network, a sleep)"
    )
    return _warning(
        "limit.model_waits",
        text,
        "look into the model; more instances overlap its waits, but for a lock that all of them take",
        model.name,
    )


def outside(evidence: Evidence) -> Finding | None:
    """Time that clients wait and the server does not know of."""
    if evidence.busiest_generator >= GENERATOR_BUSY:
        return None  # then it is the generator's own
    called = [model for model in evidence.models if model.requests and model.served]
    total = sum(model.served for model in called)
    if not total or evidence.late.late > GENERATOR_LATE * evidence.late.planned:
        return None
    inside = sum(model.served * (model.queue_ms + model.compute_ms) for model in called) / total
    rest = evidence.mean_ms - inside
    if _others_fill(evidence):
        return None  # the generator stands in line for a core too
    if evidence.busy >= FULL:  # then a part of it may be the CPU's, the generator's too
        rest -= 2 * evidence.in_line_ms
    if rest < OUTSIDE_MS or rest < OUTSIDE * evidence.mean_ms:
        return None
    text = (
        f"{rest / evidence.mean_ms:.0%} of the latency is outside the models: requests take {evidence.mean_ms:.1f} ms, "
        f"the server knows of {inside:.1f} ms"
    )
    return _warning("limit.outside", text, "look at the network, proxies, and the size of requests and answers")


def falls_behind(evidence: Evidence) -> Finding | None:
    """An open load that is not answered as it arrives."""
    offered = evidence.offered_per_s
    if offered is None or evidence.late.planned < LEAST or evidence.answered_per_s >= BEHIND * offered:
        return None
    text = (
        f"{evidence.answered_per_s:.1f} requests/s were answered of {offered:.1f} that were planned: "
        f"the {'load generator' if generator_limit(evidence) else 'server'} fell behind"
    )
    return _warning("rate.behind", text, "--shape step finds the highest rate that holds")


def memory_grows(evidence: Evidence) -> Finding | None:
    """The server's memory at the end is far above that at the start."""
    sizes = evidence.machine.server_bytes
    if sizes is None or sizes[1] < GROWTH * sizes[0] or sizes[1] - sizes[0] < GROWTH_BYTES:
        return None
    text = f"the server's memory grew from {sizes[0] / 2**20:.0f} to {sizes[1] / 2**20:.0f} MiB during the test"
    return _warning("memory.growth", text, "run the test longer; memory that goes on growing is a leak")


def cached(evidence: Evidence) -> Finding | None:
    """Repeated samples answered from the response cache measure the cache."""
    for model in evidence.models:
        if model.served and model.cache_hits >= CACHED * model.served:
            text = f"{model.cache_hits / model.served:.0%} of the answers of {model.name} came from the response cache"
            return _warning("cache.hits", text, "switch response_cache off to measure the model", model.name)
    return None


def merging(evidence: Evidence) -> Finding | None:
    """What the batcher made of the requests."""
    model = evidence.slowest
    return None if model is None else batching_finding(model, evidence.rate_of(model))


def _no_limit(evidence: Evidence) -> Finding | None:
    if evidence.machine.server_cores is None or evidence.busy >= FULL:
        return None
    if evidence.offered_per_s is not None:
        text = f"the server held {evidence.answered_per_s:.1f} requests/s with the CPU at {evidence.busy:.0%}"
        return Finding("info", "limit.none", text, remedy="--shape step finds how far it goes")
    text = f"nothing is used up: {evidence.users} users waiting for their answers leave the CPU at {evidence.busy:.0%}"
    return Finding("info", "limit.none", text, remedy="raise --users, or use --shape step")


def _warning(check: str, text: str, remedy: str, model: str | None = None) -> Finding:
    return Finding("warning", check, text, remedy=remedy, model=model)


RULES: Final[tuple[Rule, ...]] = (
    generator_limit,
    cpu_taken,
    queueing,
    cpu_used_up,
    model_waits,
    merging,
    outside,
    falls_behind,
    memory_grows,
    cached,
)
FACTS: Final[tuple[Rule, ...]] = (cpu_taken, falls_behind, memory_grows, cached)
"""What few answers show too."""
