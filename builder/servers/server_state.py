"""What a running tritonserver says of its models, and what the process table says of their processes."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from builder.errors import ServeError
from builder.servers import ServeOptions

STUB_NAME: Final = "triton_python_backend_stub"
TAIL_LINES: Final = 12
NOISE: Final = re.compile(
    r"NVML|DCGM|pinned_memory|CudaDriver|cuda_memory|CUDA memory pool|cache_manager|failed to load all models"
)
"""Lines that every start without a GPU writes."""
PARSING: Final = re.compile(r"Error parsing text-format inference\.ModelConfig: (.*)")


@dataclass(frozen=True, slots=True)
class Failure:
    """A model that is not ready, and Triton's reason."""

    model: str
    reason: str


@dataclass(frozen=True, slots=True)
class Stub:
    """The process of one instance of a model; `started` tells it from a later process of the same number."""

    pid: int
    model: str
    started: str


def read_index(address: str) -> list[dict[str, str]] | None:
    """The repository index over HTTP; None where nobody answers yet."""
    connection = http.client.HTTPConnection(address, timeout=5)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException, ValueError):
        connection.request("POST", "/v2/repository/index", body="{}")
        response = connection.getresponse()
        if response.status == http.client.OK:
            return [dict(entry) for entry in json.loads(response.read())]
    return None


def models_folder(repository: Path, options: ServeOptions) -> Path:
    """The repository, resolved.

    Raises:
        ServeError: it is no folder, or holds no model.
    """
    repository = repository.resolve()
    if not repository.is_dir():
        msg = f"{repository} is not a folder"
        raise ServeError(msg, remedy="name a model repository: a folder with one folder for each model")
    if not options.arguments and not any(entry.is_dir() for entry in repository.iterdir()):
        msg = f"{repository} holds no models"
        raise ServeError(msg, remedy="a model repository holds one folder for each model")
    return repository


def raise_failures(repository: Path, index: list[dict[str, str]], log: Path, *, explicit: bool) -> None:
    """Nothing where every model is ready.

    Raises:
        ServeError: some are not; with their names and Triton's reasons.
    """
    failures = failures_of(repository, index, log, explicit=explicit)
    if not failures:
        return
    models = len({entry["name"] for entry in index} | {failure.model for failure in failures})
    listed = "\n".join(f"  {failure.model}: {failure.reason}" for failure in failures)
    msg = f"{len(failures)} of {models} models did not load:\n{listed}{log_tail(log, failures)}"
    raise ServeError(msg, remedy="mend the models' configurations or files")


def failures_of(
    repository: Path, index: list[dict[str, str]], log: Path, *, explicit: bool = False
) -> tuple[Failure, ...]:
    """Every model of the repository that is not ready, with its reason; none with explicit model control."""
    if explicit and not any("state" in entry for entry in index):
        return ()
    failures = [
        Failure(entry["name"], clean_reason(entry.get("reason") or "no reason given"))
        for entry in index
        if entry.get("state", "UNAVAILABLE") != "READY" and "version" in entry
    ]
    named = {failure.model for failure in failures} | {e["name"] for e in index if e.get("state") == "READY"}
    text = log.read_text(encoding="utf-8", errors="replace")
    folders = sorted(entry.name for entry in repository.iterdir() if entry.is_dir())
    failures += [Failure(name, _polling_reason(name, text)) for name in folders if name not in named]
    return tuple(failures)


def clean_reason(reason: str) -> str:
    """The reason without the place in our own backend that raised it."""
    first = re.split(r"\n\s*\n?At:\n", reason)[0].strip()
    return re.sub(
        r"^(?:Internal: )?(?:TritonModelException: |c_python_backend_utils\.TritonModelException: )", "", first
    )


def _polling_reason(model: str, log: str) -> str:
    """A configuration that cannot be read keeps the model out of the index; only the log has the words."""
    lines = log.splitlines()
    for place, line in enumerate(lines):
        if found := re.search(rf"\] \"Poll failed for model directory '{re.escape(model)}': (.*?)\"?$", line):
            parsing = PARSING.search(lines[place - 1]) if place else None
            return f"{found[1]}: {parsing[1]}" if parsing else found[1]
    return "the server did not take the folder for a model"


def log_tail(log: Path, failures: tuple[Failure, ...] = ()) -> str:
    """The last lines of the server's log that say something, as text to append to a message."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    lines = lines[: next((place for place, line in enumerate(lines) if line.startswith("Usage: ")), len(lines))]
    told = [line for line in lines if re.match(r"[EWF]\d{4} ", line) or not re.match(r"[I|+]", line)]
    kept = [line for line in told if line.strip() and not NOISE.search(line)]
    if failures:
        kept = [line for line in kept if _adds_to(line, failures)]
    return "\nlast lines of the server's log:\n" + "\n".join(f"  {line}" for line in kept[-TAIL_LINES:]) if kept else ""


def stub_trouble(log: Path) -> str:
    """What the shell or the loader says when a model's process cannot start: the server itself would wait forever."""
    text = log.read_text(encoding="utf-8", errors="replace")
    found = re.search(rf"^.*{STUB_NAME}: (?:line \d+: )?(error while loading.*|[A-Z][a-z ]+)$", text, re.MULTILINE)
    return found[1] if found else ""


def _adds_to(line: str, failures: tuple[Failure, ...]) -> bool:
    """The line speaks of a failed model and says more than its reason."""
    named = any(failure.model in line for failure in failures)
    return named and not any(failure.reason.splitlines()[0][:60] in line for failure in failures)


def stubs_of(server_pid: int) -> tuple[Stub, ...]:
    """The model processes below the server."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        state = _state(int(folder.name))
        if state and state[1] == server_pid and (model := _model_of(folder)):
            found.append(Stub(pid=int(folder.name), model=model, started=state[2]))
    return tuple(found)


def vanished(stubs: tuple[Stub, ...], address: str) -> tuple[Stub, ...]:
    """Those that died while the server still takes their model for ready."""
    gone = [stub for stub in stubs if not _lives(stub)]
    if not gone:
        return ()
    index = read_index(address) or []
    ready = {entry["name"] for entry in index if entry.get("state") == "READY"}
    return tuple(stub for stub in gone if not index or stub.model in ready)


def process_lives(pid: int) -> bool:
    """True where the process is there and not merely waiting to be buried."""
    state = _state(pid)
    return state is not None and state[0] not in "ZX"


def _lives(stub: Stub) -> bool:
    state = _state(stub.pid)
    return state is not None and state[0] not in "ZX" and state[2] == stub.started


def _state(pid: int) -> tuple[str, int, str] | None:
    """State letter, parent and start time from the process table; None where there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return fields[0], int(fields[1]), fields[19]


def _model_of(folder: Path) -> str | None:
    """The model of a stub from its command line: the first argument is a file in the version folder."""
    try:
        words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return None
    if not words or not words[0].endswith(STUB_NAME):
        return None
    named = re.search(r"/([^/]+)/\d+/[^/]+$", words[1]) if len(words) > 1 else None
    return named.group(1) if named else " ".join(words[1:])
