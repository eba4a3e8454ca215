"""A finished load test as a record."""

from __future__ import annotations

import pytest

from builder.loadtest.records import AnswerFigures, LateStarts, LoadResult, MachineFigures, Window


@pytest.fixture
def result() -> LoadResult:
    windows = tuple(Window(0.3 * place, 30, 0, 100.0, 8.0 + 0.1 * (place % 3), 20.0) for place in range(10))
    return LoadResult(
        models=("linear",), protocol="grpc", users=8, rate=None, arrivals="closed", shape="constant", workers=1,
        duration_s=3.0, requests=300, failures=0, requests_per_s=100.0, rows_per_s=200.0, mean_ms=9.0, p50_ms=8.0,
        p90_ms=12.0, p95_ms=14.0, p99_ms=20.0, max_ms=31.0, failure_texts=(), late=LateStarts(300, 0, 0, 0.0),
        windows=windows, model_figures=(), answers=AnswerFigures(), machine=MachineFigures(2, 1.0, 0.0, 0.5),
        batch_mean=3.0, queue_ms=1.0, compute_ms=2.0, generator_cores=0.5, busiest_generator=0.5, machine_cores=2,
    )  # fmt: skip
