"""`make demo`: from the bytes of a photo to the name of what it shows, on a real Triton.

A pretrained PyTorch classifier, a step that decodes before it and one that names classes after it become one ensemble.

Each step is a command that you can type yourself; they are printed as they run.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
COMMAND = str(Path(sys.executable).parent / "build-repo")
REPOSITORY = "model_repository"
REPORT = "reports/demo"
PAGE = "reports/repository.html"
PHOTO = HERE / "downloads" / "photos" / "coffee.jpg"
OUT = Console(highlight=False)


def run(*arguments: str) -> dict[str, Any]:
    """Run a build-repo command; its JSON. The demo ends with the command's own exit code when it fails."""
    OUT.print(f"\n[bold]$ build-repo {shlex.join(arguments)}[/bold]", soft_wrap=True)
    done = subprocess.run([COMMAND, *arguments, "--json"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.stdout.write(done.stdout)
        sys.exit(done.returncode)
    return json.loads(done.stdout)


@contextmanager
def served() -> Iterator[tuple[str, str]]:
    """The repository on the embedded Triton; its HTTP and gRPC addresses."""
    ports = ["--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"]
    OUT.print(f"\n[bold]$ build-repo serve {REPOSITORY} {' '.join(ports)}[/bold]", soft_wrap=True)
    server = subprocess.Popen([COMMAND, "serve", REPOSITORY, *ports], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        line = server.stdout.readline() if server.stdout else ""
        if not line.startswith("ready "):
            sys.exit(server.wait())
        OUT.print(line.strip())
        addresses = dict(part.split("=") for part in line.split()[1:])
        yield addresses["http"], addresses["grpc"]
    finally:
        server.terminate()
        server.wait()


def ask(http: str) -> list[tuple[str, float]]:
    """What Triton says a photo shows: the bytes of its JPEG go in, the best classes come out with their shares."""
    import tritonclient.http as triton

    client = triton.InferenceServerClient(http)
    tensor = triton.InferInput("image", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([PHOTO.read_bytes()], dtype=object))
    answer = client.infer("photo_classifier", [tensor])
    client.close()
    names = [name.decode() for name in answer.as_numpy("label")[0]]
    return list(zip(names, answer.as_numpy("score")[0].tolist(), strict=True))


def table(build: dict[str, Any]) -> Table:
    """Model, target, size, latency, error against its source, verdict."""
    rows = Table(box=None, header_style="bold")
    for heading in ("model", "target", "size", "latency", "error", "top-1", "verdict"):
        rows.add_column(heading, justify="left" if heading in ("model", "target", "verdict") else "right", no_wrap=True)
    every = [(model, target) for model in build["models"] for target in model["targets"]]
    for model, target in every:
        measured = target["measurement"] or {"latency": [], "outputs": [], "metric": None}
        worst = max((output["max_relative"] for output in measured["outputs"]), default=None)
        is_served = model["served"] == {"backend": target["backend"], "precision": target["precision"]}
        rows.add_row(
            model["name"],
            f"{target['backend']}:{target['precision']}",
            f"{target['size_bytes'] / 1e6:.1f} MB" if target["size_bytes"] else "-",
            f"{measured['latency'][0]['median_ms']:.1f} ms" if measured["latency"] else "-",
            f"{worst:.1e}" if worst is not None else "-",
            f"{measured['metric']['target']:.2f}" if measured["metric"] else "-",
            target["status"] + (", served" if is_served else ""),
        )
    return rows


def ensemble_line(build: dict[str, Any]) -> str:
    """How far the ensemble is from its members' sources, run one after the other."""
    made = build["ensembles"][0]
    worst = max(output["max_relative"] for output in made["outputs"])
    return f"{made['name']} = {' → '.join(made['members'])}: {made['status']}, error {worst:.1e} against the sources"


def main() -> None:
    """The whole demo."""
    started = time.monotonic()
    OUT.print("[bold]$ python examples/classifier/prepare.py[/bold]")
    subprocess.run([sys.executable, str(HERE / "prepare.py")], check=True)
    build = run("build", "examples/classifier/models.yaml", "-o", REPOSITORY)
    with served() as (http, grpc):
        urls = ["--url", f"http://{http}", "--url", f"grpc://{grpc}"]
        check = run("check", REPOSITORY, *urls)
        best = ask(http)
        load = run(
            "loadtest", REPOSITORY, *urls, "--model", "photo_classifier", "--duration", "20s", "--report", REPORT
        )
    OUT.print()
    OUT.print(table(build))
    OUT.print(f"\n{ensemble_line(build)}", soft_wrap=True)
    for model in check["models"]:
        OUT.print(f"live check of {model['name']} over {' and '.join(model['result']['protocols'])}: {model['status']}")
    name, share = best[0]
    OUT.print(f"the bytes of {PHOTO.name}, as Triton answered: [bold]{name}[/bold] ({share:.0%})")
    OUT.print(
        f"load test of photo_classifier: {load['requests_per_s']:.1f} requests/s, p50 {load['p50_ms']:.1f} ms, "
        f"p99 {load['p99_ms']:.1f} ms, {load['failures']} failures"
    )
    OUT.print(f"report: {load['html']}", soft_wrap=True)
    OUT.print(f"\n[bold]$ build-repo report {REPOSITORY} -o {PAGE}[/bold]", soft_wrap=True)
    sys.stdout.flush()
    subprocess.run([COMMAND, "report", REPOSITORY, "-o", PAGE], cwd=ROOT, check=True)
    OUT.print(f"repository: {ROOT / REPOSITORY} (took {time.monotonic() - started:.0f} s)", soft_wrap=True)


if __name__ == "__main__":
    main()
