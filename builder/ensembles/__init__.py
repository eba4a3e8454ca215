"""Ensembles: how steps are wired, what their sources answer, and the configuration that follows.

`wiring` and `flat` are pure and work on signatures; `config` works on the members' configurations. `members` looks up
who the members are, `planning` makes the works, `answering` runs one of them, `requests` finds the samples.
"""
