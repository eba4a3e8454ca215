"""Put a repository together in a staging folder: versions, carried-over files, the model folders of this build."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from builder.digests import digest_of, file_digest, folder_digests
from builder.errors import SpecError
from builder.manifest import MANIFEST_FILE, SAMPLES_FILE, Manifest, ServedRecord
from builder.trees import link, link_tree
from builder.triton_config.checksums import with_checksums
from builder.versions import VERSION, answers_file, kept_versions, served_numbers, versions_in
from builder.work import Target

CONFIG_FILE: Final = "config.pbtxt"
KEEP: Final = ".keep"
ENGINE: Final = re.compile(r"model_sm(\d+)(\d)\.plan")
"""The TensorRT engine of one compute capability: `model_sm89.plan` is 8.9's."""


@dataclass(frozen=True, slots=True)
class OlderVersion:
    """A version beside the newest one that the spec has too: its artefact's files, and what its source answered."""

    version: int
    artefact: Path
    files: Mapping[str, str]
    samples: Path


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """What one model folder is made of.

    `files` are the artefact's, path → sha256, below `artefact`; `extra` goes beside the config by relative path,
    content or the file to copy.
    `joined` are files of the version that stands which stay in use beside the artefact's: engines of other GPUs, made
    by the same `recipe`. `serve` says which versions the server loads. Where the spec numbers
    its versions, `version` is the newest, and `older` are all others there will be. With `checksums` the configuration
    tells it the sums of all files of versions.
    """

    folder: str
    target: Target
    artefact: Path
    files: Mapping[str, str]
    config: str
    batching: bool
    samples: Path | None
    extra: Mapping[str, bytes | Path]
    keep: int
    joined: Mapping[str, str] = field(default_factory=dict)
    recipe: str = ""
    serve: str | int | tuple[int, ...] = "latest"
    version: int | None = None
    older: tuple[OlderVersion, ...] = ()
    checksums: bool = False

    @property
    def pinned(self) -> tuple[int, ...]:
        """Versions that the spec names, which stay whatever `keep` says."""
        return self.serve if isinstance(self.serve, tuple) else ()

    @property
    def every_file(self) -> dict[str, str]:
        """What the version folder holds, path → sha256."""
        return dict(sorted({**self.joined, **self.files}.items()))


def engines_in(names: Iterable[str]) -> dict[str, str]:
    """Compute capability → file, of the names of a version folder's files."""
    found = ((match, name) for name in sorted(names) if (match := ENGINE.fullmatch(name)))
    return {f"{match[1]}.{match[2]}": name for match, name in found}


def joined_engines(before: ServedRecord | None, recipe: str, files: Iterable[str]) -> dict[str, str]:
    """Engines of other GPUs in the version that stands, file → sha256, where they were made by the same recipe."""
    if before is None or not recipe or before.recipe != recipe:
        return {}
    prefix = f"{before.version}/"
    held = {name.removeprefix(prefix): value for name, value in before.files.items() if name.startswith(prefix)}
    others = set(engines_in(held).values()) - set(files)
    return {name: held[name] for name in sorted(others)}


def check_output(output: Path, manifest: Manifest | None, folders: Mapping[str, str]) -> None:
    """Refuse to write where somebody else's files could be lost; `folders` maps each folder to its model.

    Raises:
        SpecError: the output is a file, no model repository, or holds a model of the same name that is not ours, or
            that belongs to another model which stays.
    """
    if not output.exists():
        return
    if not output.is_dir():
        raise SpecError(f"{output} is a file, not a folder", remedy="give another output with -o DIR")
    if manifest is None:
        stranger = _stranger(output)
        if stranger:
            raise SpecError(
                f"{output} is not a model repository: it holds {stranger}",
                remedy="give a new or empty folder with -o DIR; build-repo never replaces files it did not make",
            )
    ours = manifest.served_folders() if manifest else {}
    for folder, model in folders.items():
        owner = ours[folder][0].name if folder in ours else model
        if owner != model and owner not in folders.values():
            raise SpecError(
                f"{model!r} would replace {folder!r}, which the model {owner!r} of an earlier build is served as",
                remedy="give the model another name, or name both models in one spec",
            )
        if os.path.lexists(output / folder) and folder not in ours:
            raise SpecError(
                f"{output / folder} exists and was not made by build-repo",
                remedy="give the model another name, another output with -o DIR, or move that folder away",
            )


def _stranger(output: Path) -> str | None:
    """The first thing that no Triton repository would hold; hidden files are everybody's."""
    items = [item for item in sorted(output.iterdir()) if not item.name.startswith(".")]
    models = [item for item in items if item.is_dir() and is_model_folder(item)]
    for item in items:
        if item.is_dir() and item not in models:
            return f"the folder {item.name!r}, which is no model"
        if not item.is_dir() and not models:
            return f"the file {item.name!r}"
    return None


def is_model_folder(folder: Path) -> bool:
    """A config, or a version folder."""
    return (folder / CONFIG_FILE).is_file() or any(
        VERSION.fullmatch(item.name) and item.is_dir() for item in folder.iterdir()
    )


def stage_model(staged: Path, current: Path, model: ModelFolder, before: ServedRecord | None) -> ServedRecord:
    """Write one model folder into `staged`; an artefact that did not change keeps its version."""
    artefact = digest_of(model.every_file)
    old_folder = current / model.folder
    version, unchanged = _version(old_folder, before, artefact, model)
    new_folder = staged / model.folder
    new_folder.mkdir(parents=True)
    numbered = model.version is not None
    kept = [] if numbered else kept_versions(versions_in(old_folder), version, model.keep, model.pinned)
    for older in model.older:
        _stage_older(old_folder, new_folder, older)
    for number in kept:
        link_tree(old_folder / str(number), new_folder / str(number))
    if unchanged:
        link_tree(old_folder / str(version), new_folder / str(version))
    else:
        for name in model.joined:
            _join(old_folder / str(before.version if before else version) / name, new_folder / str(version) / name)
        _copy_artefact(model.artefact, model.files, new_folder / str(version))
    _write(new_folder / CONFIG_FILE, _config_bytes(model.config, model, new_folder))
    if model.samples is not None:
        shutil.copyfile(model.samples, new_folder / SAMPLES_FILE)
    for name, content in model.extra.items():
        if isinstance(content, Path):
            shutil.copyfile(content, new_folder / name)
        else:
            is_config = name.endswith(".pbtxt")
            _write(new_folder / name, _config_bytes(content.decode(), model, new_folder) if is_config else content)
    own = {older.version: older for older in model.older}
    served = served_numbers(model.serve, [*kept, *own, version])
    others = {
        number: _answers_of(own[number], new_folder)
        if number in own
        else _answers(old_folder, new_folder, number, before)
        for number in served
        if number != version
    }
    return ServedRecord(
        folder=model.folder,
        target=model.target,
        version=version,
        artefact=artefact,
        batching=model.batching,
        files=_own_files(new_folder, version, model.every_file) | _files_of(new_folder, {*others, *own}),
        recipe=model.recipe,
        others={str(number): file for number, file in others.items()},
    )


def _stage_older(old_folder: Path, new_folder: Path, older: OlderVersion) -> None:
    standing = old_folder / str(older.version)
    if standing.is_dir() and folder_digests(standing) == dict(older.files):
        link_tree(standing, new_folder / str(older.version))
    else:
        _copy_artefact(older.artefact, older.files, new_folder / str(older.version))


def _answers_of(older: OlderVersion, new_folder: Path) -> str:
    shutil.copyfile(older.samples, new_folder / answers_file(older.version))
    return answers_file(older.version)


def _answers(old: Path, new: Path, number: int, before: ServedRecord | None) -> str | None:
    """Keep what the source of an older version answered: it is checked by that as long as it is served."""
    was_newest = before is not None and before.version == number
    source = old / (SAMPLES_FILE if was_newest else answers_file(number))
    if not source.is_file():
        return None
    link(str(source), str(new / answers_file(number)))
    return answers_file(number)


def _files_of(folder: Path, versions: Iterable[int]) -> dict[str, str]:
    return {
        f"{number}/{name}": value
        for number in sorted(versions)
        for name, value in folder_digests(folder / str(number)).items()
    }


def _config_bytes(text: str, model: ModelFolder, folder: Path) -> bytes:
    return (with_checksums(text, folder) if model.checksums else text).encode()


def stage_ensemble_folder(
    staged: Path, name: str, config: str, samples: Path | None, *, batching: bool
) -> ServedRecord:
    """Write an ensemble's folder: its one version is empty, and the file in it keeps it through copies.

    All versions of a model share one configuration, and an ensemble is nothing else: older ones could not differ.
    """
    folder = staged / name
    _write(folder / "1" / KEEP, b"")
    _write(folder / CONFIG_FILE, config.encode())
    if samples is not None:
        shutil.copyfile(samples, folder / SAMPLES_FILE)
    held = folder_digests(folder / "1")
    return ServedRecord(name, None, 1, digest_of(held), batching, _own_files(folder, 1, held))


def _join(source: Path, destination: Path) -> None:
    destination.parent.mkdir(parents=True, exist_ok=True)
    link(str(source), str(destination))


def _version(folder: Path, before: ServedRecord | None, artefact: str, model: ModelFolder) -> tuple[int, bool]:
    """The version that holds this very artefact, untouched since, and True; else the next number and False.

    A version that only gains the engine of another GPU keeps its number: nothing changes for those that it runs on.
    """
    files = model.every_file
    present = versions_in(folder)
    if model.version is not None:
        return model.version, model.version in present and folder_digests(folder / str(model.version)) == files
    if before is not None and model.joined and before.version in present:
        held = folder_digests(folder / str(before.version))
        if held.items() < files.items():
            return before.version, False
    known = before is not None and before.artefact == artefact and before.version in present
    if before is not None and known and folder_digests(folder / str(before.version)) == files:
        return before.version, True
    return max(present, default=0) + 1, False


def _copy_artefact(artefact: Path, files: Iterable[str], destination: Path) -> None:
    """A real copy: a user who edits the repository must not edit the cache."""
    for name in files:
        target = destination / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(artefact / name, target)


def _own_files(folder: Path, version: int, artefact: Mapping[str, str]) -> dict[str, str]:
    """Digests of everything but older versions."""
    beside = {
        str(path.relative_to(folder)): file_digest(path)
        for path in folder.rglob("*")
        if path.is_file() and not VERSION.fullmatch(path.relative_to(folder).parts[0])
    }
    return dict(sorted((beside | {f"{version}/{name}": value for name, value in artefact.items()}).items()))


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def carry_over(staged: Path, current: Path, *, drop: frozenset[str]) -> None:
    """Everything in the current repository that this build neither makes nor removes, linked into the new one."""
    if not current.is_dir():
        return
    for item in sorted(current.iterdir()):
        if item.name in drop or item.name == MANIFEST_FILE or item.name.startswith(".build-repo-"):
            continue
        if (staged / item.name).exists():
            continue
        link_tree(item, staged / item.name)
