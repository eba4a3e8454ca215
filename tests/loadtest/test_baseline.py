from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from builder import records
from builder.errors import SpecError
from builder.loadtest import LoadResult, baseline_verdicts, compare_baseline, read_baseline
from builder.loadtest.records import Window


def run(result: LoadResult, p99_ms: float, rate: float, noise: float, seed: int) -> LoadResult:
    """A test whose windows vary by the share `noise`."""
    random = np.random.default_rng(seed)
    windows = tuple(
        Window(float(place), 100, 0, rate * factor, 8.0, p99_ms * other)
        for place, (factor, other) in enumerate(1 + noise * random.standard_normal((10, 2)))
    )
    return replace(result, windows=windows)


def checks(now: LoadResult, before: LoadResult) -> list[str]:
    found = [finding.check for finding in compare_baseline(now, before)]
    missed = [f"baseline.{item.quantity}" for item in baseline_verdicts(now, before) if not item.held]
    assert missed == [check for check in found if check not in ("baseline.short", "baseline.setting")]
    return found


def test_the_same_is_no_regression(result: LoadResult) -> None:
    assert compare_baseline(result, result) == ()


@pytest.mark.parametrize("noise", [0.02, 0.1, 0.3])
def test_noise_is_no_regression(result: LoadResult, noise: float) -> None:
    alarms = sum(
        bool(checks(run(result, 20.0, 100.0, noise, seed), run(result, 20.0, 100.0, noise, 1000 + seed)))
        for seed in range(200)
    )
    assert alarms <= 6


def test_what_is_beyond_the_noise_is_one(result: LoadResult) -> None:
    """The quieter the test, the smaller a change it shows."""
    for noise, change in ((0.01, 1.06), (0.05, 1.2), (0.2, 2.0)):
        before = run(result, 20.0, 100.0, noise, 1)
        slower = run(result, 20.0 * change, 100.0 / change, noise, 2)
        assert checks(slower, before) == ["baseline.p99", "baseline.rps"], noise
        assert checks(before, slower) == [], noise
    assert checks(run(result, 20.4, 98.0, 0.2, 2), run(result, 20.0, 100.0, 0.2, 1)) == []


def test_a_shape_is_compared_window_by_window(result: LoadResult) -> None:
    """A ramp's own rise is no noise."""
    before = replace(result, windows=tuple(Window(i, 10, 0, 10.0 * (i + 1), 5.0, 10.0 + 5 * i) for i in range(10)))
    slower = replace(result, windows=tuple(replace(item, p99_ms=1.15 * (item.p99_ms or 0)) for item in before.windows))
    assert checks(slower, before) == ["baseline.p99"]


def test_more_failures_and_another_setting(result: LoadResult) -> None:
    assert checks(replace(result, failures=30), result) == ["baseline.errors"]
    other = compare_baseline(replace(result, users=9), result)
    assert [(item.severity, item.check) for item in other] == [("warning", "baseline.setting")]
    assert "under another load: users 8, now 9" in other[0].message


def test_a_short_test_says_so(result: LoadResult) -> None:
    """And has not passed: nothing was compared."""
    (short,) = compare_baseline(replace(result, windows=result.windows[:2]), result)
    assert (short.severity, short.check) == ("error", "baseline.short")


def test_the_rate_that_holds(result: LoadResult) -> None:
    before = replace(result, shape="step", held_rate=100.0)
    assert checks(replace(before, held_rate=95.0), before) == []
    assert checks(replace(before, held_rate=80.0), before) == ["baseline.rate"]


def test_a_file_that_is_no_result(result: LoadResult, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    records.write_record(file, result)
    assert read_baseline(file) == result
    file.write_text("{}", encoding="utf-8")
    for path in (file, tmp_path / "absent.json"):
        with pytest.raises(SpecError, match="baseline"):
            read_baseline(path)


def test_what_held_is_told_with_its_noise(result: LoadResult) -> None:
    verdicts = {item.quantity: item for item in baseline_verdicts(result, result)}
    assert list(verdicts) == ["p50", "p99", "rps", "errors"]
    assert all(item.held and item.source == "baseline" for item in verdicts.values())
    assert verdicts["p99"].noise == pytest.approx(0.03 * 20.0)
    assert verdicts["p99"].limit == pytest.approx(20.6)
    assert verdicts["rps"].limit == pytest.approx(97.0)
