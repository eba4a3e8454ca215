"""From the raw log to figures, plots and the page."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from builder.findings import Finding
from builder.loadtest import LoadOptions, LoadResult, LoadSubject
from builder.loadtest.answers import Piece, piece_of
from builder.loadtest.command import commands, users_of
from builder.loadtest.figures import (
    COLUMNS,
    Log,
    late_starts,
    latency_fields,
    levels_of,
    silent_s,
    throughput_fields,
    windows_of,
)
from builder.loadtest.http_limit import body_words
from builder.loadtest.plots import bar_plot, line_plot, nice_top
from builder.loadtest.records import ModelFigures, Verdict
from builder.loadtest.report import render_html
from builder.loadtest.server_processes import allowed_cores, machine_times, server_pids, usage_of
from builder.samples import Request
from builder.servers import Endpoint


@pytest.fixture
def log() -> Log:
    """100 requests a second for 10 s: 10 ms each, every tenth fails, the last twenty are answered too late to count."""
    due = np.arange(0.0, 10.0, 0.01)
    rows = np.zeros((len(due), len(COLUMNS)))
    for name, values in (("due_s", due), ("queued_s", due), ("sent_s", due), ("ended_s", due + 0.01), ("rows", 2.0)):
        rows[:, COLUMNS.index(name)] = values
    rows[::10, COLUMNS.index("outcome")] = 1
    rows[-20:, COLUMNS.index("ended_s")] += 1.0
    rows[500:520, COLUMNS.index("sent_s")] += 0.02
    rows[500:505, COLUMNS.index("queued_s")] += 0.02
    return Log(rows, 10.0)


def test_figures(log: Log) -> None:
    fields = latency_fields(log)
    assert fields["p50_ms"] == pytest.approx(10.0)
    assert fields["p99_ms"] == fields["max_ms"] == pytest.approx(1010.0)
    assert throughput_fields(log) == {"requests_per_s": pytest.approx(88.2), "rows_per_s": pytest.approx(176.4)}
    late = late_starts(log)
    assert (late.planned, late.late, late.generator) == (1000, 20, 5)
    assert late.worst_ms == pytest.approx(20.0)
    windows = windows_of(log)
    assert [window.requests for window in windows] == [100] * 10
    assert {window.failures for window in windows} == {10}
    assert windows[3].requests_per_s == pytest.approx(90.0)
    assert windows[9].p99_ms == pytest.approx(1010.0)
    assert latency_fields(Log(log.rows[:0], 10.0))["p99_ms"] == 0.0


def test_silence_at_the_end(log: Log) -> None:
    outcome, sent, ended = (COLUMNS.index(name) for name in ("outcome", "sent_s", "ended_s"))
    assert silent_s(log) == 0.0
    rows = log.rows.copy()
    rows[300:, outcome], rows[300:, ended] = 1, rows[300:, sent] + 0.01
    assert silent_s(Log(rows, 10.0)) == 0.0, "refused at once"
    rows[300:, ended] = rows[300:, sent] + 2.0
    assert silent_s(Log(rows, 10.0)) == pytest.approx(7.0)
    rows[300:, outcome] = 2
    assert silent_s(Log(rows, 10.0)) == pytest.approx(7.0)
    rows[990:, outcome] = 0
    assert silent_s(Log(rows, 10.0)) == 0.0


def test_levels() -> None:
    tried = {"rate": 20, "held": False, "behind": True, "figures": {"errors": 100.0}}
    (level,) = levels_of([{"rate": 0}, tried])
    assert (level.rate, level.held, level.behind, level.p99_ms, level.error_percent) == (20.0, False, True, None, 100.0)


def test_pieces_of_stored_requests() -> None:
    x = np.arange(10).reshape(5, 2)
    request = Request({"x": x}, {"y": x * 2}, rows=5)
    assert piece_of(request, Piece(0, 0, 5), request.outputs)["y"].tolist() == (x * 2).tolist()
    assert piece_of(request, Piece(0, 3, 2), request.inputs)["x"].tolist() == x[3:].tolist()
    assert piece_of(request, Piece(0, 0, 7), request.inputs)["x"][5:].tolist() == x[:2].tolist()
    whole = replace(request, rows=0)
    assert piece_of(whole, Piece(0, 0, 0), whole.inputs)["x"].tolist() == x.tolist()


def test_command_lines(tmp_path: Path) -> None:
    endpoint = Endpoint("h:1", "h:2", None, headers=(("a", "b"),))
    options = LoadOptions(tmp_path, workers=3, rate=50.0, mix=("m@2=1",), limits=(("p99", 5.0),))
    master, *workers = commands(endpoint, [LoadSubject("m")], options, tmp_path)
    assert len(workers) == 3
    assert "--expect-workers" in master
    assert all("--worker" in worker for worker in workers)
    joined = " ".join(master)
    for words in ("--host grpc://h:2", "--rate 50", "--mix m@2=1", "--header-file", "--limit p99=5", "-u 50 "):
        assert words in joined
    assert "a:b" not in joined, "who lists the processes sees no secret"
    assert (tmp_path / "headers").read_text(encoding="utf-8") == "a:b\n"
    assert (tmp_path / "headers").stat().st_mode & 0o077 == 0
    assert users_of(LoadOptions(tmp_path, rate=5000.0, workers=2)) == 128
    assert users_of(LoadOptions(tmp_path, users=1, workers=2)) == 2


def test_bodies_over_the_limit() -> None:
    big = LoadSubject("big", (Request({"x": np.zeros(17 << 20, np.float32)}, {}),))
    text, remedy = body_words([big], "http")
    assert "68 MiB" in text
    assert f"--http-max-input-size={(68 << 20) + (1 << 20)}" in remedy
    assert body_words([big], "grpc") == ("", "")


def test_scales() -> None:
    assert [nice_top(value) for value in (0.0, 0.7, 1.0, 1.1, 2.4, 37.0, 99.0)] == [
        1.0,
        1.0,
        1.0,
        2.0,
        2.5,
        50.0,
        100.0,
    ]
    plot = line_plot("t", "s", [("a", [(0.0, 0.0), (5.0, None), (10.0, 4.0)])])
    assert len(plot.lines[0].points.split()) == 2
    assert [tick.text for tick in plot.rows] == ["0", "1.25", "2.5", "3.75", "5"]
    bars = bar_plot("b", "rows", [(str(size), size) for size in range(1, 100)])
    assert len(bars.bars) == 40
    assert bars.bars[-1].text == "99: 99"
    assert all(bar.height >= 0 for bar in bars.bars)


def test_the_page_needs_nothing_else(result: LoadResult, log: Log) -> None:
    model = ModelFigures("<net>", 300, 0, 8.0, 20.0, 300, 900, 120, batches=((1, 20), (8, 100)))
    finding = Finding("warning", "limit.cpu", "a < b & c", remedy="less")
    page = render_html(replace(result, models=("<net>",), model_figures=(model,), diagnosis=(finding,)), log, ())
    assert "a &lt; b &amp; c" in page
    assert "<net>" not in page
    assert page.count("<svg") == 3
    assert "What must hold" not in page
    assert not re.search(r"(?:src|href)=|@import|url\(|https?://", page)


def test_this_process_is_measured() -> None:
    usage = usage_of([os.getpid()], family=False)
    assert usage.cpu_s > 0
    assert usage.resident_bytes > 1 << 20
    assert usage_of([]).cpu_s == 0
    assert 0 < (allowed_cores([os.getpid()]) or 0) <= psutil.cpu_count()
    busy, steal = machine_times()
    assert busy > steal >= 0
    assert server_pids(Endpoint("127.0.0.1:9", None, None)) == ()
    assert server_pids(Endpoint("example.invalid:8000", None, None)) == ()


def test_the_page_shows_what_was_asked_for_and_what_was_seen(result: LoadResult, log: Log) -> None:
    missed = Verdict("slo", "p99", held=False, seen=20.0, limit=15.0, unit="ms")
    kept = Verdict("baseline", "rps", held=True, seen=100.0, limit=97.0, unit="requests/s", noise=3.0)
    page = render_html(replace(result, verdicts=(missed, kept)), log, ())
    rows = [re.findall("<td>(.*?)</td>", row) for row in re.findall("<tr>(.*?)</tr>", page, re.DOTALL)]
    assert ["SLO", "p99", "fail", "20 ms", "at most 15 ms", "-"] in rows
    assert ["baseline", "requests/s", "pass", "100 requests/s", "at least 97 requests/s", "3 requests/s"] in rows
