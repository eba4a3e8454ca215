"""README.md and the guides are true: every command runs, with the exit code and the output they show.

Commands stand in ```console blocks behind `$ `; the lines below one are what it prints, numbers aside, `…` for what is
left out. `echo $?` below a command states its exit code, otherwise it is 0. YAML blocks that begin with `# NAME.yaml`
are that file. The server of `serve` runs until the end, and later commands for localhost:8000 and :8001 go to it.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper

from builder.cli import COMMANDS
from builder.spec import RepoSpec
from builder.tuning_file import TuningSpec

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
TEXTS = (README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
DOCKER_PAGE = ROOT / "docs" / "guides" / "docker.md"
"""tests/docker/test_images.py has them."""
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"[+-]?\d[\d.,]*(e[+-]?\d+)?")

ELSEWHERE = {
    "make demo": "test_the_demo_is_named_by_make_and_its_spec_is_valid; run as a whole before a release",
    "make test": "what runs this test: .ci/run",
    "pip install '.[torch,openvino,load]'": "test_the_extras_exist; make setup installs the same way",
    "pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu": "test_the_torch_line_is_the_pin",
    "build-repo runtime install": "make setup runs it; tests/runtime/test_runtime.py",
    "build-repo runtime install --triton 25.06": "tests/runtime/test_runtime.py; downloads half a gigabyte",
    "build-repo runtime remove --triton 25.06": "tests/runtime/test_runtime.py; would delete the user's own runtime",
}
"""Commands that this test does not run → what covers them."""


@dataclass(frozen=True)
class Command:
    text: str
    shown: tuple[str, ...]
    code: int


@dataclass
class Shell:
    """The folder in which the commands run one after the other, and the server that one of them started."""

    folder: Path
    server: subprocess.Popen[str] | None = None
    addresses: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return os.environ | {
            "PATH": path, "BUILD_REPO_CACHE": str(self.folder.parent / "cache"), "NO_COLOR": "1", "COLUMNS": "200",
        }  # fmt: skip

    def here(self, text: str) -> str:
        """The text with the address of the server that runs."""
        for port, name in (("8000", "http"), ("8001", "grpc")):
            text = text.replace(f"localhost:{port}", self.addresses.get(name, f"localhost:{port}"))
        return text

    def run(self, command: str) -> tuple[int, str]:
        done = subprocess.run(
            ["bash", "-c", self.here(command)], cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=180, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout

    def serve(self, command: str) -> tuple[int, str]:
        """Start the server on free ports and wait for its line."""
        free = " --http-port 0 --grpc-port 0 --metrics-port 0"
        self.server = subprocess.Popen(
            ["bash", "-c", f"exec {command}{free}"], cwd=self.folder, env=self.environment,
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        line = self.server.stdout.readline()
        self.addresses = dict(part.split("=") for part in line.split()[1:])
        return 0, line

    def stop(self) -> int | None:
        if self.server is None:
            return None
        self.server.send_signal(signal.SIGTERM)
        try:
            return self.server.wait(timeout=30)
        finally:
            self.server.kill()
            self.server.stdout.close()


def blocks(path: Path, language: str) -> list[str]:
    return [text for word, text in BLOCK.findall(path.read_text(encoding="utf-8")) if word == language]


def commands(path: Path) -> list[Command]:
    """The commands of the console blocks; `echo $?` becomes the exit code of the one above it."""
    found: list[Command] = []
    for block in blocks(path, "console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            text, *shown = part.rstrip("\n").split("\n")
            if text == "echo $?":
                found[-1] = Command(found[-1].text, found[-1].shown, int(shown[0]))
            else:
                found.append(Command(text, tuple(shown), 0))
    return found


def plain(line: str) -> str:
    """Without numbers and the width of columns; CPUs with bfloat16 compute in it what others compute in fp32."""
    return " ".join(NUMBER.sub("#", line).replace(" bf# ", " fp# ").split())


def missing_lines(command: Command, output: str, folder: Path) -> list[str]:
    """Lines that are shown and were not printed."""
    printed = {plain(line.replace(str(folder), "/home/you")) for line in output.splitlines()}
    return [line for line in command.shown if line != "…" and plain(line) not in printed]


@pytest.fixture
def shell(tmp_path: Path, runtime: Any) -> Iterator[Shell]:
    """`runtime` is there so that the embedded server is."""
    folder = tmp_path / "work"
    folder.mkdir()
    write_onnx(folder / "model.onnx")
    write_network(folder)
    write_classifier(folder)
    for block in blocks(README, "yaml"):
        name = re.match(r"# (\S+\.yaml)\n", block)
        assert name, f"a YAML block of the README begins with its file name:\n{block}"
        (folder / name[1]).write_text(block, encoding="utf-8")
    shell = Shell(folder)
    yield shell
    shell.stop()


def write_onnx(path: Path) -> None:
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array((rng.normal(size=shape) * 0.3).astype(np.float32), name)
        for name, shape in (("w", (16, 4)), ("b", (4,)))
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Add", ["h", "b"], ["a"]),
        helper.make_node("Softmax", ["a"], ["scores"], axis=-1),
    ]
    ports = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size])]
        for name, size in (("x", 16), ("scores", 4))
    ]
    graph = helper.make_graph(nodes, "tiny", *ports, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def write_network(folder: Path) -> None:
    """A state dict made without torch's help in this process, its code, labelled samples and class names."""
    (folder / "my_nets.py").write_text(
        "import torch\n\n\n"
        "def build(classes: int) -> torch.nn.Module:\n"
        "    return torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, classes))\n",
        encoding="utf-8",
    )
    script = (
        "import torch, my_nets, numpy as np\n"
        "torch.manual_seed(0)\n"
        "network = my_nets.build(5)\n"
        "torch.save(network.state_dict(), 'weights.pth')\n"
        "rows = np.random.default_rng(0).normal(size=(20, 8)).astype(np.float32)\n"
        "labels = network(torch.from_numpy(rows)).argmax(1).numpy().astype(np.int64)\n"
        "np.savez('samples.npz', features=rows, label=labels)\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=folder, check=True, timeout=120)
    (folder / "classes.txt").write_text("".join(f"class {letter}\n" for letter in "abcde"), encoding="utf-8")


def write_classifier(folder: Path) -> None:
    """`digits.onnx` and `digits.npz`, trained in a process of its own."""
    script = "import sys; from pathlib import Path; from digits import write_digits; write_digits(Path(sys.argv[1]))"
    python = os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests")))}
    subprocess.run([sys.executable, "-c", script, str(folder)], env=python, check=True, timeout=240)


@pytest.mark.live
@pytest.mark.slow
def test_every_command_of_the_readme_does_what_it_shows(shell: Shell) -> None:
    wrong = []
    for command in commands(README):
        if command.text in ELSEWHERE:
            continue
        assert command.text.startswith("build-repo "), f"neither run nor in ELSEWHERE: {command.text}"
        run = shell.serve if command.text.startswith("build-repo serve ") else shell.run
        code, output = run(command.text)
        missing = missing_lines(command, output, shell.folder)
        if code != command.code or missing:
            wrong.append(f"$ {command.text}\n{output}exit {code}, shown {command.code}; not printed: {missing}")
        if shell.server is not None and run == shell.serve:
            wrong += client_problems(shell)
    assert not wrong, "\n\n".join(wrong)
    assert shell.stop() == 0


def client_problems(shell: Shell) -> list[str]:
    """The README's Python client against the server that runs."""
    wrong = []
    for block in blocks(README, "python"):
        done = subprocess.run(
            [sys.executable, "-c", shell.here(block)], capture_output=True, text=True, timeout=60, check=False
        )
        if done.returncode or not re.match(r"\[\[0\.\d+", done.stdout):
            wrong.append(f"{block}\n{done.stdout}{done.stderr}")
    return wrong


def test_no_command_stands_in_another_kind_of_block() -> None:
    for path in TEXTS:
        words = {word for word, _ in BLOCK.findall(path.read_text(encoding="utf-8"))}
        assert words <= {"", "console", "yaml", "python"}, path
        for block in blocks(path, ""):
            found = re.search(r"^\s*(\$ |build-repo [a-z]|make [a-z]|pip )", block, re.MULTILINE)
            assert not found, f"{path}:\n{block}"
    run = (README, DOCKER_PAGE)
    assert all(commands(path) == [] for path in TEXTS if path not in run), "only the commands of these are run"


def test_commands_covered_elsewhere_are_in_the_readme() -> None:
    assert set(ELSEWHERE) <= {command.text for command in commands(README)}


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_commands_named_in_the_text_exist(path: Path) -> None:
    named = re.findall(r"`build-repo ([a-z]+)", path.read_text(encoding="utf-8"))
    assert set(named) <= set(COMMANDS)


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text(encoding="utf-8")):
        assert link.startswith("https://") or (path.parent / link).exists(), link


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_every_spec_and_tuning_file_shown_is_valid(path: Path) -> None:
    for block in blocks(path, "yaml"):
        data = yaml.safe_load(block)
        (TuningSpec if "format" in data else RepoSpec).model_validate(data)


def test_the_make_targets_named_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for path in TEXTS:
        assert set(re.findall(r"`make ([a-z]+)", path.read_text(encoding="utf-8"))) <= targets


def test_the_demo_is_named_by_make_and_its_spec_is_valid() -> None:
    assert "examples/classifier/demo.py" in (ROOT / "Makefile").read_text(encoding="utf-8")
    text = (ROOT / "examples" / "classifier" / "models.yaml").read_text(encoding="utf-8")
    assert RepoSpec.model_validate(yaml.safe_load(text)).models[0].name == "classifier"


def test_the_extras_exist() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {"torch", "openvino", "load", "all"} <= set(project["optional-dependencies"])


def test_the_torch_line_is_the_pin() -> None:
    assert "torch==2.13.0" in (ROOT / "constraints.txt").read_text(encoding="utf-8").split()


def test_exit_codes_are_those_of_the_program() -> None:
    from builder import errors

    known = {kind.exit_code for kind in errors.KINDS.values()} | {
        errors.EXIT_OK, errors.EXIT_BUG, errors.EXIT_INTERRUPTED,
    }  # fmt: skip
    section = README.read_text(encoding="utf-8").partition("| exit | meaning |")[2].partition("\n\n")[0]
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", section, re.MULTILINE)} == known
