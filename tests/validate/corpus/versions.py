"""Version folders and policies."""

# ruff: noqa: E501 - a case is a line

from corpus import MODEL_PY, PLAIN, Case

ALONE = ("number_then_word", "number_then_word_beside", "number_then_word_all", "plus", "plus_beside", "space", "space_after",
         "decimal", "decimal_beside", "empty_folder", "empty_latest", "minus", "minus_all", "specific_negative")  # fmt: skip
"""A version is read from the name, and no such folder is there: the Python backend's process ends, the server waits."""
REAL = ("minus_beside", "same_number_word", "only_zero", "zero_all")


def engine(case: str) -> str:
    return "alone" if case in ALONE else "real" if case in REAL else "core"


def numbered(case: str, folders: str, policy: str = "", beside: str = "") -> Case:
    files = {f"@M/{name}/model.py": MODEL_PY for name in folders.split("|") if name}
    return Case(
        f"versions_{case}",
        {"@M/config.pbtxt": PLAIN + policy, **files, **({beside: "x"} if beside else {})},
        engine(case),
    )


def cases() -> list[Case]:
    return [numbered(case, *rest) for case, rest in TABLE.items()] + [
        Case("versions_empty_folder", {"@M/config.pbtxt": PLAIN}, "alone", ("@M/1",)),
        Case("versions_empty_latest", {"@M/config.pbtxt": PLAIN, "@M/1/model.py": MODEL_PY}, "alone", ("@M/2",)),
        Case("versions_file_named_1", {"@M/config.pbtxt": PLAIN, "@M/1": "x"}),
        Case("versions_file_and_folder", {"@M/config.pbtxt": PLAIN, "@M/2": "x", "@M/1/model.py": MODEL_PY}),
        Case("versions_model_beside", {"@M/config.pbtxt": PLAIN, "@M/model.py": MODEL_PY}),
    ]


TABLE: dict[str, tuple[str, ...]] = {
    "one": ("1",),
    "three": ("1|2|3",),
    "none": ("",),
    "only_zero": ("0",),
    "zero_and_one": ("0|1",),
    "zero_all": ("0|1", "version_policy { all { } }"),
    "zero_specific": ("0|1", "version_policy { specific { versions: 0 } }"),
    "leading_zero": ("01",),
    "leading_zero_beside": ("01|1",),
    "leading_zeros_later": ("1|002",),
    "double_zero": ("00",),
    "word": ("v1",),
    "word_beside": ("v1|1",),
    "number_then_word": ("1abc",),
    "number_then_word_beside": ("1|2abc",),
    "number_then_word_all": ("1|2abc", "version_policy { all { } }"),
    "same_number_word": ("1|1abc",),
    "minus": ("-1",),
    "minus_beside": ("-1|1",),
    "minus_all": ("-1|1", "version_policy { all { } }"),
    "plus": ("+1",),
    "plus_beside": ("+2|1",),
    "space": (" 1",),
    "space_after": ("1 ",),
    "decimal": ("1.0",),
    "decimal_beside": ("1|2.5",),
    "big": ("4294967296",),
    "biggest": ("9223372036854775807",),
    "too_big": ("9223372036854775808",),
    "too_big_beside": ("9223372036854775808|1",),
    "date": ("20240131|1",),
    "hidden": (".git|1",),
    "checkpoints": (".ipynb_checkpoints|1",),
    "pycache": ("__pycache__|1",),
    "warmup_folder": ("1", "", "@M/warmup/a"),
    "initial_state_folder": ("1", "", "@M/initial_state/a"),
    "configs_folder": ("1", "", "@M/configs/a.txt"),
    "assets_folder": ("1", "", "@M/assets/a"),
    "digits_unicode": ("१|1",),
    "latest": ("1|2", "version_policy { latest { num_versions: 1 } }"),
    "latest_two": ("1|2|3", "version_policy { latest { num_versions: 2 } }"),
    "latest_more_than_there": ("1", "version_policy { latest { num_versions: 9 } }"),
    "latest_zero": ("1", "version_policy { latest { num_versions: 0 } }"),
    "latest_empty": ("1|2", "version_policy { latest { } }"),
    "policy_empty": ("1|2", "version_policy { }"),
    "all": ("1|2|7", "version_policy { all { } }"),
    "all_none": ("", "version_policy { all { } }"),
    "specific": ("1|2|3", "version_policy { specific { versions: [ 1, 3 ] } }"),
    "specific_missing": ("1", "version_policy { specific { versions: [ 2 ] } }"),
    "specific_one_missing": ("1", "version_policy { specific { versions: [ 1, 2 ] } }"),
    "specific_twice": ("1", "version_policy { specific { versions: [ 1, 1 ] } }"),
    "specific_empty": ("1", "version_policy { specific { } }"),
    "specific_negative": ("1|-2", "version_policy { specific { versions: [ -2 ] } }"),
    "specific_missing_negative": ("1", "version_policy { specific { versions: [ 1, -2 ] } }"),
}
