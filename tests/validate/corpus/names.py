"""Names of models and folders, and directories that are no models."""

from corpus import MODEL_PY, PLAIN, Case, model


def folder(case: str, suffix: str, config: str | None = PLAIN) -> Case:
    return Case(f"names_{case}", model(config, name=f"@M{suffix}"), "real" if config is None else "core")


def cases() -> list[Case]:
    return [
        folder("same", "", 'name: "@M"\n' + PLAIN),
        folder("other", "", 'name: "other"\n' + PLAIN),
        folder("empty", "", 'name: ""\n' + PLAIN),
        folder("case", "", 'name: "@M"\n'.upper().replace("NAME", "name") + PLAIN),
        folder("trailing_space", "", 'name: "@M "\n' + PLAIN),
        folder("dot", ".net"),
        folder("dot_python", ".python", None),
        folder("dash", "-net"),
        folder("unicode", "ü"),
        folder("percent", "%20"),
        folder("plus", "+net"),
        folder("tilde", "~"),
        Case("names_hidden", {**model(PLAIN), ".@M/readme.txt": "x"}),
        Case("names_hidden_model", {**model(PLAIN), ".@M/config.pbtxt": PLAIN, ".@M/1/model.py": MODEL_PY}),
        Case("names_empty_folder", model(PLAIN), folders=("@M_empty",)),
        Case("names_readme_folder", {**model(PLAIN), "@M_docs/readme.md": "x"}),
        Case("names_dot_folder", {**model(PLAIN), "@M_docs.old/readme.md": "x"}),
        Case("names_nested", {"@M/inner/config.pbtxt": PLAIN, "@M/inner/1/model.py": MODEL_PY}),
        Case("names_file_at_root", {**model(PLAIN), "@M.txt": "x"}),
        Case("names_config_only", {"@M/config.pbtxt": PLAIN}),
        Case("names_config_folder", {**model(None), "@M/config.pbtxt/a": "x"}),
        Case("names_config_upper", {**model(None), "@M/Config.pbtxt": PLAIN}, engine="real"),
        Case(
            "names_two_configs",
            {**model(PLAIN), "@M/config.pbtxt.bak": "nonsense", "@M/configs/a100.pbtxt": "nonsense"},
        ),
        Case("names_config_in_version", {**model(PLAIN), "@M/1/config.pbtxt": "nonsense"}),
        Case("names_no_config_no_model", {}, folders=("@M/1",)),
    ]
