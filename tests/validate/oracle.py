"""What the real server says of the corpus: many cases in one start, and the verdicts kept in `verdicts.json`.

python tests/validate/oracle.py             makes verdicts.json anew
python tests/validate/oracle.py NAME…       prints the server's word on some cases
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from corpus import Case, cases, write

from builder import defaults
from builder import runtime as runtimes
from builder.runtime import Runtime
from builder.servers import ServeOptions, embedded
from builder.servers.backend_folder import assemble_backends
from builder.servers.ports import choose_ports
from builder.servers.server_state import failures_of, read_index

VERDICTS = Path(__file__).with_name("verdicts.json")
SOURCE = Path(__file__).with_name("quiet_backend.c")
READY_S, ALONE_S = 100.0, 12.0
Verdict = dict[str, Any]


def ask(asked: Sequence[Case]) -> dict[str, Verdict]:
    """`{case: {"loads": …, "reasons": {folder: the server's words}}}`."""
    found: dict[str, Verdict] = {}
    for engine in ("core", "real"):
        found |= _ask_engine([case for case in asked if case.engine == engine], engine)
    for case in (case for case in asked if case.engine == "alone"):
        try:
            found |= _ask_engine([case], "real", ALONE_S)
        except TimeoutError:
            found[case.name] = {"loads": False, "reasons": {"@M": "the server never gets ready"}}
    return {case.name: found[case.name] for case in asked}


def _ask_engine(asked: Sequence[Case], engine: str, ready_s: float = READY_S) -> dict[str, Verdict]:
    if not asked:
        return {}
    with tempfile.TemporaryDirectory(prefix="build-repo-corpus-") as scratch:
        repository = Path(scratch) / "repository"
        repository.mkdir()
        for case in asked:
            write(case, repository)
        reasons = _serve(repository, Path(scratch), engine, ready_s)
    if reasons is not None:
        return {case.name: _verdict(case, reasons) for case in asked}
    if len(asked) == 1:
        return {asked[0].name: {"loads": False, "reasons": {"@M": "the server ended"}}}
    middle = len(asked) // 2
    return _ask_engine(asked[:middle], engine) | _ask_engine(asked[middle:], engine)


def _verdict(case: Case, reasons: dict[str, str]) -> Verdict:
    folders = {path.split("/")[0].replace("@M", case.name) for path in (*case.files, *case.folders)}
    told = {name.replace(case.name, "@M"): reasons[name].replace(case.name, "@M") for name in folders & set(reasons)}
    return {"loads": not told, "reasons": dict(sorted(told.items()))}


def _serve(repository: Path, scratch: Path, engine: str, ready_s: float) -> dict[str, str] | None:
    """The reasons of all models that are not ready; None where the server ended."""
    runtime = runtimes.require(defaults.RELEASE)
    _backends(runtime, scratch / "backends", engine)
    options = ServeOptions(defaults.RELEASE)
    ports = choose_ports(options)
    command = embedded._server_command(repository, runtime, options, ports, scratch)
    log = scratch / "server.log"
    with log.open("wb") as stream:
        environment = embedded._environment(runtime, auto_complete=True)
        server = subprocess.Popen(command, stdout=stream, stderr=stream, env=environment, cwd=scratch)
    try:
        deadline = time.monotonic() + ready_s
        while (index := read_index(f"{options.host}:{ports.http}")) is None:
            if server.poll() is not None:
                return None
            if time.monotonic() > deadline:
                raise TimeoutError(log.read_text(errors="replace")[-2000:])
            time.sleep(0.05)
        plain = str(repository) + "/"
        return {
            item.model: item.reason.replace(plain, "").replace(str(scratch), "")
            for item in failures_of(repository, index, log)
        }
    finally:
        server.kill()
        server.wait()
        embedded.watchdog.remove_shared_memory(scratch.name)


def _backends(runtime: Runtime, folder: Path, engine: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    if engine == "real":
        assemble_backends(folder, runtime.backend_folder, runtime.record.packages)
        return
    (folder / "python").mkdir(parents=True)
    library = folder / "python" / "libtriton_python.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, SOURCE], check=True)
    for word in ("quiet",):
        (folder / word).mkdir()
        shutil.copyfile(library, folder / word / f"libtriton_{word}.so")


def stored() -> dict[str, Verdict]:
    """The verdicts as they stand."""
    verdicts: dict[str, Verdict] = json.loads(VERDICTS.read_text(encoding="utf-8"))
    return verdicts


def _main(names: Iterable[str]) -> None:
    wanted = tuple(names)
    found = ask([case for case in cases() if not wanted or case.name in wanted])
    text = json.dumps(found, indent=1, ensure_ascii=False) + "\n"
    if wanted:
        sys.stdout.write(text)
    else:
        VERDICTS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    _main(sys.argv[1:])
