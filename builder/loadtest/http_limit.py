"""Servers from 25.06 refuse HTTP bodies over 64 MiB unless they are told otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from builder.findings import Finding
from builder.loadtest.records import LoadResult, LoadSubject
from builder.samples.strings import array_bytes

BODY_LIMIT: Final = 64 << 20


def body_words(models: Sequence[LoadSubject], protocol: str) -> tuple[str, str]:
    """What is wrong with the largest request and what mends it; empty where nothing is."""
    sizes = (sum(map(array_bytes, item.inputs.values())) for subject in models for item in subject.requests)
    largest = max(sizes, default=0) if protocol == "http" else 0
    if largest <= BODY_LIMIT:
        return "", ""
    text = f"a request of {largest / 2**20:.0f} MiB is over the 64 MiB that servers from 25.06 take over HTTP"
    return text, f"--protocol grpc, or serve with --http-max-input-size={largest + (1 << 20)}"


def body_finding(models: Sequence[LoadSubject], result: LoadResult) -> Finding | None:
    """A warning where this server took what newer ones refuse."""
    text, remedy = body_words(models, result.protocol)
    return Finding("warning", "http.body", text, remedy=remedy, model=",".join(result.models)) if text else None
