"""What `tune` would have found for a model of the tests."""

from __future__ import annotations

from builder.machine import machine_facts
from builder.tuning_records import LoadPoint, Objective, Setting, Tried, TunedModel

DEFAULT = Setting("onnxruntime:fp32", max_batch_size=8)
CHOSEN = Setting("openvino:fp32", instances=2, threads=1)
POINT = LoadPoint(8, 100, 0, 50.5, 50.5, 1.0, 2.0, 0.5, None, ((1, 3), (8, 2)), 0.1, 1.8, None)
WORDS = {"serve": "openvino:fp32", "instances": {"count": 2}, "openvino": {"threads": 2, "streams": 2}}


def tried(setting: Setting, value: float) -> Tried:
    return Tried(setting, value, value * 0.9, value * 1.1, value, 3, POINT)


def tuned_model(
    name: str = "m", *, export_key: str = "0" * 32, machine: dict[str, str] | None = None, triton: str = "26.07"
) -> TunedModel:
    """A search for throughput in which openvino is twice as good."""
    return TunedModel(
        name=name,
        export_key=export_key,
        objective=Objective("throughput", 8, slo=(("p99", 50.0),)),
        machine=dict(machine_facts()) if machine is None else machine,
        triton=triton,
        server="embedded",
        default=DEFAULT,
        chosen=CHOSEN,
        gain=2.0,
        tried=(tried(DEFAULT, 100.0), tried(CHOSEN, 200.0)),
        space=150,
        measurements=6,
        seconds=42.0,
        stopped="no untried setting can be better",
        chosen_curve=(POINT,),
        notes=("für alle Fälle: [x]",),
    )
