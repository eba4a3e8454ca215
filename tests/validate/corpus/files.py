"""Model files, default_model_filename, and what the file names say where the configuration says nothing."""

from corpus import INPUT, MODEL_PY, OUTPUT, PLAIN, Case

BAD_PY = MODEL_PY.replace("class", "clas")


def real(name: str, files: dict[str, str | bytes]) -> Case:
    return Case(f"files_{name}", files, engine="alone" if name in HANGS else "real")


HANGS = ("python_missing", "python_case", "python_beside", "named_missing", "no_backend_first_only",
         "all_versions_one_missing", "named_beside")  # fmt: skip
"""The Python backend's process ends early for want of a file, and this server then waits for ever."""


def shell(folder: str) -> dict[str, str | bytes]:
    return {f"{folder}/config.pbtxt": PLAIN, f"{folder}/1/model.py": MODEL_PY}


def cases() -> list[Case]:
    named = 'default_model_filename: "main.py"\n'
    no_backend = PLAIN.replace('backend: "python"', "")
    only_io = f"{INPUT}\n{OUTPUT}"
    return [
        real("python", {"@M/config.pbtxt": PLAIN, "@M/1/model.py": MODEL_PY}),
        real("python_missing", {"@M/config.pbtxt": PLAIN, "@M/1/readme": "x"}),
        real("python_case", {"@M/config.pbtxt": PLAIN, "@M/1/Model.py": MODEL_PY}),
        real("python_beside", {"@M/config.pbtxt": PLAIN, "@M/model.py": MODEL_PY, "@M/1/readme": "x"}),
        real("named", {"@M/config.pbtxt": named + PLAIN, "@M/1/main.py": MODEL_PY}),
        real("named_missing", {"@M/config.pbtxt": named + PLAIN, "@M/1/model.py": MODEL_PY}),
        real("named_default", {"@M/config.pbtxt": named.replace("main", "model") + PLAIN, "@M/1/model.py": MODEL_PY}),
        real("named_in_folder",
             {"@M/config.pbtxt": named.replace("main", "lib/main") + PLAIN, "@M/1/lib/main.py": MODEL_PY}),
        real("named_beside", {"@M/config.pbtxt": named.replace("main", "../main") + PLAIN, "@M/main.py": MODEL_PY,
                              "@M/1/readme": "x"}),
        real("no_backend", {"@M/config.pbtxt": no_backend, "@M/1/model.py": MODEL_PY}),
        real("no_backend_no_file", {"@M/config.pbtxt": no_backend, "@M/1/readme": "x"}),
        real("no_backend_two_versions",
             {"@M/config.pbtxt": no_backend, "@M/1/readme": "x", "@M/2/model.py": MODEL_PY}),
        real("no_backend_first_only",
             {"@M/config.pbtxt": no_backend, "@M/1/model.py": MODEL_PY, "@M/2/readme": "x"}),
        real("no_backend_ten", {"@M/config.pbtxt": no_backend, "@M/10/model.py": MODEL_PY, "@M/9/readme": "x"}),
        Case("files_shell_space", shell("@M net"), "alone"),
        Case("files_shell_parentheses", shell("@M(1)"), "alone"),
        Case("files_shell_ampersand", shell("@M&net"), "alone"),
        Case("files_shell_semicolon", shell("@M;net"), "alone"),
        Case("files_shell_quote", shell("@M'net"), "alone"),
        Case("files_shell_space_in_file", {"@M/config.pbtxt": named.replace("main", "my main") + PLAIN,
                                           "@M/1/my main.py": MODEL_PY}, "alone"),
        Case("files_shell_hash_inside", shell("@M#net"), "real"),
        Case("files_shell_brackets", shell("@M[1]"), "real"),
        Case("files_shell_braces", shell("@M{1}"), "real"),
        Case("files_shell_star", shell("@M*"), "real"),
        Case("files_shell_marks", shell("@M,=+@%net"), "real"),
        real("no_config", {"@M/1/model.py": MODEL_PY}),
        real("no_config_no_file", {"@M/1/readme": "x"}),
        real("no_config_odd", {"@M/1/model.h5": "x"}),
        real("io_only", {"@M/config.pbtxt": only_io, "@M/1/model.py": MODEL_PY}),
        real("unused_onnx_beside", {"@M/config.pbtxt": PLAIN, "@M/1/model.py": MODEL_PY, "@M/1/model.onnx": "x"}),
        real("all_versions_one_missing",
             {"@M/config.pbtxt": PLAIN + "version_policy { all { } }", "@M/1/readme": "x", "@M/2/model.py": MODEL_PY}),
        real("old_version_missing", {"@M/config.pbtxt": PLAIN, "@M/1/readme": "x", "@M/2/model.py": MODEL_PY}),
    ]  # fmt: skip
