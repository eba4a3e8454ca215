"""One work in one process: `python -m builder.step WORK_JSON OUT_DIR CACHE_DIR`.

The parent owns `OUT_DIR` and its rename. The child's stdout carries one JSON document: `{}` or the error; whatever the
libraries print goes to stderr, which the parent keeps as the log.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Final

from builder.cache import DISK_ERRORS, Cache, disk_error
from builder.errors import EXIT_BUG, EXIT_INTERRUPTED, BuildError, BuildRepoError, error_to_json
from builder.isolation import leave_network
from builder.log import set_up_logging
from builder.processes import PARENT_VARIABLE
from builder.records import read_record
from builder.work import Answer, Convert, Export, Measure, Packages, Prepare, Profile, Work

ARGUMENTS: Final = 4


def run_work(work: Work, out: Path, cache: Cache, *, isolated: bool = False) -> None:
    """Make the result of one work in `out`, in this process; `isolated` says that it has left the network.

    Raises:
        BuildRepoError: the work could not be finished.
    """
    try:
        _dispatch(work, out, cache, isolated=isolated)
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        raise disk_error(error, Path(error.filename or out)) from error
    except MemoryError as error:
        raise BuildError("out of memory", remedy="close other programs, or use --jobs 1") from error


def _dispatch(work: Work, out: Path, cache: Cache, *, isolated: bool) -> None:
    own = work.export if isinstance(work, Answer) else work
    if isinstance(own, (Export, Measure, Profile)) and own.packages:
        # Before anything else is imported: what the step asks for wins over what build-repo uses itself.
        sys.path.insert(0, str(cache.folder("packages", own.packages) / "packages"))
    if isinstance(work, Packages):
        from builder.frameworks.python.packages import install_packages

        install_packages(work, out)
    elif isinstance(work, Export):
        from builder.export import run_export

        run_export(work, out, isolated=isolated)
    elif isinstance(work, Prepare):
        from builder.prepare import run_prepare

        run_prepare(work, cache, out)
    elif isinstance(work, Convert):
        from builder.convert import run_convert

        run_convert(work, cache, out)
    elif isinstance(work, Measure):
        from builder.measure import run_measure

        run_measure(work, cache.folder("export", work.export), cache.folder("convert", work.convert), out)
    elif isinstance(work, Profile):
        from builder.profiling import run_profile

        run_profile(work, cache.folder("export", work.export), cache.folder("convert", work.convert), out)
    elif isinstance(work, Answer):
        from builder.ensembles.answering import run_answer

        run_answer(work, cache, out)


def opens_code(work: Work) -> bool:
    """True where the spec allows code of a model's file to run."""
    export = work.export if isinstance(work, Answer) else work
    return isinstance(export, Export) and export.source.allow_pickle


def needs_process(work: Work) -> bool:
    """True where a work must not share a process: a file's own code runs, or a step's, with packages of its own."""
    own = work.export if isinstance(work, Answer) else work
    code = own is None or (isinstance(own, Export) and own.source.format == "python")
    return opens_code(work) or code or (isinstance(work, (Measure, Profile)) and work.target.backend == "python")


def read_work(path: Path) -> Work:
    """Read a work record, whichever kind it is."""
    every: tuple[type[Work], ...] = (Packages, Export, Prepare, Convert, Measure, Profile, Answer)
    kinds = {kind.__name__.lower(): kind for kind in every}
    kind = json.loads(path.read_text(encoding="utf-8")).get("kind")
    return read_record(kinds[kind], path)


def main(arguments: list[str]) -> int:
    """The child's whole life; the exit code only matters when there is no JSON."""
    if len(arguments) != ARGUMENTS - 1:
        sys.stderr.write("usage: python -m builder.step WORK_JSON OUT_DIR CACHE_DIR\n")
        return 2
    work_file, out, root = (Path(text) for text in arguments)
    die_with_parent()
    set_up_logging(verbose=True)
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    out.mkdir(parents=True, exist_ok=True)
    try:
        work = read_work(work_file)
        run_work(work, out, Cache(root), isolated=opens_code(work) and leave_network())
    except BuildRepoError as error:
        traceback.print_exc()
        answer.write(json.dumps(error_to_json(error)))
        answer.flush()
        return error.exit_code
    except SystemExit as error:
        traceback.print_exc()
        said = f"the model's own code ended the process: SystemExit({error.code!r})"
        answer.write(json.dumps(error_to_json(BuildError(said, remedy="remove the exit; the log says where it is"))))
        answer.flush()
        return BuildError.exit_code
    except Exception as error:
        traceback.print_exc()
        said = f"{type(error).__name__}: {error}".splitlines()[0]
        answer.write(
            json.dumps(error_to_json(BuildError(f"unexpected {said}", remedy="see the log; please report it")))
        )
        answer.flush()
        return EXIT_BUG
    answer.write("{}")
    answer.flush()
    return 0


def die_with_parent() -> None:
    """Ask the kernel to end this process when its parent dies (Linux)."""
    import ctypes
    import signal

    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG, linux/prctl.h
    parent = os.environ.get(PARENT_VARIABLE)
    if parent and parent != str(os.getppid()):
        os._exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # Native libraries' exit handlers may hang or crash after the result is safe on disk.
    os._exit(code)
