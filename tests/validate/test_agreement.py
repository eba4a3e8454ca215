"""The validator against the real server: stored verdicts for the whole corpus, the server itself for a part."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import oracle
import pytest
from corpus import STRICT, Case, cases, family_of, write

from builder.errors import SpecError
from builder.findings import has_errors
from builder.releases import EMBEDDED_SERVER
from builder.runtime import Runtime
from builder.validate import validate_repository

PART = 60
VERDICTS = oracle.stored()


def accepts(case: Case, folder: Path) -> bool:
    """What the validator says of the case, for the release that the verdict is for."""
    write(case, folder)
    # The embedded server knows the fields of its own release; without TensorFlow it is like the newest one.
    newer = "has no field named" in str(VERDICTS[case.name]["reasons"])
    try:
        return not has_errors(validate_repository(folder, EMBEDDED_SERVER if newer else "26.07"))
    except SpecError:
        return False


def test_the_validator_agrees_with_the_server(tmp_path: Path) -> None:
    wrong, strict = [], []
    for case in cases():
        folder = tmp_path / case.name
        folder.mkdir()
        if accepts(case, folder) != VERDICTS[case.name]["loads"]:
            wrong.append((case.name, VERDICTS[case.name]))
            strict += [case.name] if family_of(case) in STRICT else []
    assert not strict, strict
    assert len(wrong) <= 0.02 * len(cases()), wrong


def test_every_case_has_a_verdict_and_half_of_them_load() -> None:
    names = [case.name for case in cases()]
    assert len(names) == len(set(names))
    assert set(names) == set(VERDICTS)
    loads = sum(verdict["loads"] for verdict in VERDICTS.values())
    assert 0.4 < loads / len(names) < 0.6


@pytest.mark.live
@pytest.mark.skipif(shutil.which("cc") is None, reason="the quiet backend needs a C compiler")
def test_the_server_still_says_the_same(runtime: Runtime) -> None:
    """Another part in each run; `CORPUS_SEED` repeats one."""
    seed = os.environ.get("CORPUS_SEED", str(random.SystemRandom().randrange(10**6)))
    told = [case for case in cases() if case.engine == "core" and not _ends(case)]
    asked = random.Random(seed).sample(told, PART)
    found = oracle.ask(asked)
    changed = {name: verdict for name, verdict in found.items() if verdict["loads"] != VERDICTS[name]["loads"]}
    assert not changed, f"CORPUS_SEED={seed}: {changed}"


def _ends(case: Case) -> bool:
    return "the server ended" in VERDICTS[case.name]["reasons"].values()
