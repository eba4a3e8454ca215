"""`make demo`: a pretrained PyTorch classifier becomes a repository that a real Triton serves, checks and survives.

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


def ask(http: str) -> tuple[str, float]:
    """What Triton says the coffee photo shows: the best class by its label file, and the logit."""
    import tritonclient.http as triton

    photo = np.load(HERE / "downloads" / "photos.npz")["image"][:1]
    client = triton.InferenceServerClient(http)
    tensor = triton.InferInput("image", list(photo.shape), "FP32")
    tensor.set_data_from_numpy(photo)
    answer = client.infer("classifier", [tensor], outputs=[triton.InferRequestedOutput("logits", class_count=1)])
    client.close()
    value, _, name = answer.as_numpy("logits").ravel()[0].decode().split(":")
    return name, float(value)


def table(build: dict[str, Any]) -> Table:
    """Target, size, latency, error against PyTorch, verdict."""
    rows = Table(box=None, header_style="bold")
    for heading in ("target", "size", "latency", "error", "top-1", "verdict"):
        rows.add_column(heading, justify="left" if heading in ("target", "verdict") else "right", no_wrap=True)
    model = build["models"][0]
    for target in model["targets"]:
        measured = target["measurement"] or {"latency": [], "outputs": [], "metric": None}
        worst = max((output["max_relative"] for output in measured["outputs"]), default=None)
        is_served = model["served"] == {"backend": target["backend"], "precision": target["precision"]}
        rows.add_row(
            f"{target['backend']}:{target['precision']}",
            f"{target['size_bytes'] / 1e6:.1f} MB" if target["size_bytes"] else "-",
            f"{measured['latency'][0]['median_ms']:.1f} ms" if measured["latency"] else "-",
            f"{worst:.1e}" if worst is not None else "-",
            f"{measured['metric']['target']:.2f}" if measured["metric"] else "-",
            target["status"] + (", served" if is_served else ""),
        )
    return rows


def main() -> None:
    """The whole demo."""
    started = time.monotonic()
    OUT.print("[bold]$ python examples/classifier/prepare.py[/bold]")
    subprocess.run([sys.executable, str(HERE / "prepare.py")], check=True)
    build = run("build", "examples/classifier/models.yaml", "-o", REPOSITORY)
    with served() as (http, grpc):
        urls = ["--url", f"http://{http}", "--url", f"grpc://{grpc}"]
        check = run("check", REPOSITORY, *urls)
        name, logit = ask(http)
        load = run("loadtest", REPOSITORY, *urls, "--duration", "20s", "--report", REPORT)
    OUT.print()
    OUT.print(table(build))
    model = check["models"][0]
    OUT.print(f"\nlive check over {' and '.join(model['result']['protocols'])}: {model['status']}")
    OUT.print(f"the coffee photo, as Triton answered: [bold]{name}[/bold] (logit {logit:.1f})")
    OUT.print(
        f"load test: {load['requests_per_s']:.1f} requests/s, p50 {load['p50_ms']:.1f} ms, "
        f"p99 {load['p99_ms']:.1f} ms, {load['failures']} failures"
    )
    OUT.print(f"report: {load['html']}", soft_wrap=True)
    OUT.print(f"repository: {ROOT / REPOSITORY} (took {time.monotonic() - started:.0f} s)", soft_wrap=True)


if __name__ == "__main__":
    main()
