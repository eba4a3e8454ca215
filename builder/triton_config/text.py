"""ModelConfig between its text (`config.pbtxt`), Triton's own proto, and plain JSON data."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from builder.errors import SpecError
from builder.resources import resource
from builder.triton_config.reader import read_into

if TYPE_CHECKING:
    from jinja2 import Environment

Json = dict[str, Any]

_WRITTEN: Final = (
    "name", "platform", "backend", "max_batch_size", "default_model_filename", "input", "output", "instance_group",
    "dynamic_batching", "sequence_batching", "ensemble_scheduling", "parameters", "model_warmup",
)  # fmt: skip
"""Fields that the templates write themselves; all others are printed by the proto's own printer."""
_ENUMS: Final = ("data_type", "kind", "format", "timeout_action")


@cache
def model_config_proto() -> Any:  # noqa: ANN401 - a generated module
    """Triton's `model_config_pb2` alone: the package around it imports gRPC and numpy, too slow for a rebuild."""
    package = find_spec("tritonclient")
    folders = (package and package.submodule_search_locations) or ()
    file = next((path for folder in folders if (path := Path(folder) / "grpc" / "model_config_pb2.py").is_file()), None)
    spec = file and spec_from_file_location("builder_model_config_pb2", file)
    if not spec or spec.loader is None:
        return import_module("tritonclient.grpc.model_config_pb2")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parse_config(text: str) -> Json:
    """The ModelConfig as JSON with the proto's field names (64-bit integers are strings, as protobuf has it).

    Raises:
        SpecError: with line:column, for what Triton's own parser refuses.
    """
    from google.protobuf import json_format

    data: Json = json_format.MessageToDict(parse_message(text), preserving_proto_field_name=True)
    _words(data)
    return data


def _words(data: Any) -> None:  # noqa: ANN401 - JSON at any depth
    """Enum values that are only numbers become text, as all others are."""
    if isinstance(data, list):
        for item in data:
            _words(item)
    elif isinstance(data, dict):
        for key, value in data.items():
            if key in _ENUMS and isinstance(value, int):
                data[key] = str(value)
            else:
                _words(value)


def parse_message(text: str) -> Any:  # noqa: ANN401 - a protobuf message
    """As `parse_config`, as the proto's own message."""
    from google.protobuf import text_format

    message = model_config_proto().ModelConfig()
    try:
        read_into(text, message)
    except text_format.ParseError as error:
        reason = str(error)
        if error.GetLine():
            place = f"{error.GetLine()}:{error.GetColumn()}"
            reason = f"{place}: {reason.removeprefix(place).lstrip(' :')}"
        msg = f"config.pbtxt:{reason}"
        raise SpecError(
            msg, remedy="mend the text; comments start with #, list items are separated by commas"
        ) from None
    return message


def to_message(config: Json, *, where: str = "config") -> Any:  # noqa: ANN401
    """The proto's message of a ModelConfig in JSON; `where` is its place in the spec, for messages.

    Raises:
        SpecError: a field is unknown or has another type.
    """
    from google.protobuf import json_format

    try:
        return json_format.ParseDict(config, model_config_proto().ModelConfig())
    except json_format.ParseError as error:
        msg = f"{where}: {str(error).splitlines()[0]}"
        raise SpecError(msg, remedy="write it as in Triton's model_config.proto") from None


def config_to_text(config: Json, *, template: str = "plain", release: str = "") -> str:
    """Readable `config.pbtxt` of a ModelConfig in JSON; the same config gives the same bytes.

    Raises:
        SpecError: the config is no ModelConfig.
    """
    message = to_message(config)
    text = _environment().get_template(f"{template}.pbtxt.j2").render(config=_view(message), release=release)
    if parse_message(text) != message:
        msg = f"the text written for {message.name!r} does not read back as the same configuration"
        raise AssertionError(msg)
    return text


@cache
def _environment() -> Environment:
    from google.protobuf import text_encoding
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(resource("templates") / "config"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - the text is no HTML; `quote` escapes strings as the proto's text wants it
    )
    environment.filters["sizes"] = lambda sizes: f"[ {', '.join(map(str, sizes))} ]" if sizes else "[ ]"
    environment.filters["quote"] = lambda text: f'"{text_encoding.CEscape(text, True)}"'
    return environment


def _view(message: Any) -> Json:  # noqa: ANN401
    return {
        "name": message.name,
        "platform": message.platform,
        "backend": message.backend,
        "max_batch_size": message.max_batch_size,
        "default_model_filename": message.default_model_filename,
        "inputs": [_tensor(tensor) for tensor in message.input],
        "outputs": [_tensor(tensor) for tensor in message.output],
        "instances": [
            {"count": group.count, "kind": _enum(group, "kind"), "more": _more(group, ("count", "kind"))}
            for group in message.instance_group
        ],
        "batching": _batching(message.dynamic_batching) if message.HasField("dynamic_batching") else None,
        "sequences": _sequences(message.sequence_batching) if message.HasField("sequence_batching") else None,
        "ensemble": _ensemble(message.ensemble_scheduling) if message.HasField("ensemble_scheduling") else None,
        "parameters": [
            {"key": key, "value": message.parameters[key].string_value} for key in sorted(message.parameters)
        ],
        "warm_ups": [_warm_up(warm_up) for warm_up in message.model_warmup],
        "more": _more(message, _WRITTEN),
    }


def _tensor(tensor: Any) -> Json:  # noqa: ANN401
    return {
        "name": tensor.name,
        "data_type": _enum(tensor, "data_type"),
        "dims": list(tensor.dims),
        "reshape": list(tensor.reshape.shape) if tensor.HasField("reshape") else None,
        "label_filename": getattr(tensor, "label_filename", ""),
        "more": _more(tensor, ("name", "data_type", "dims", "reshape", "label_filename")),
    }


def _batching(batching: Any) -> Json:  # noqa: ANN401
    more = _more(batching, ("preferred_batch_size",))
    return {"preferred": list(batching.preferred_batch_size), "more": more}


def _sequences(batching: Any) -> Json:  # noqa: ANN401
    strategy = batching.WhichOneof("strategy_choice")
    return {
        "max_idle": batching.max_sequence_idle_microseconds,
        "strategy": strategy,
        "strategy_lines": _more(getattr(batching, strategy), ()) if strategy else [],
        "controls": [
            {
                "name": control.name,
                "controls": [{"kind": _enum(item, "kind"), "more": _more(item, ("kind",))} for item in control.control],
            }
            for control in batching.control_input
        ],
        "states": [_state(state) for state in batching.state],
        "more": _more(batching, ("max_sequence_idle_microseconds", strategy or "", "control_input", "state")),
    }


def _state(state: Any) -> Json:  # noqa: ANN401
    return {
        "input_name": state.input_name,
        "output_name": state.output_name,
        "data_type": _enum(state, "data_type"),
        "dims": list(state.dims),
        "initial": [
            {
                "name": first.name,
                "data_type": _enum(first, "data_type"),
                "dims": list(first.dims),
                "more": _more(first, ("name", "data_type", "dims")),
            }
            for first in state.initial_state
        ],
        "more": _more(state, ("input_name", "output_name", "data_type", "dims", "initial_state")),
    }


def _ensemble(scheduling: Any) -> Json:  # noqa: ANN401
    return {
        "inflight": getattr(scheduling, "max_inflight_requests", 0),
        "steps": [
            {
                "model_name": step.model_name,
                "model_version": step.model_version,
                "inputs": sorted(step.input_map.items()),
                "outputs": sorted(step.output_map.items()),
                "more": _more(step, ("model_name", "model_version", "input_map", "output_map")),
            }
            for step in scheduling.step
        ],
    }


def _warm_up(warm_up: Any) -> Json:  # noqa: ANN401
    return {
        "name": warm_up.name,
        "batch_size": warm_up.batch_size,
        "count": warm_up.count,
        "inputs": [
            {
                "name": name,
                "data_type": _enum(warm_up.inputs[name], "data_type"),
                "dims": list(warm_up.inputs[name].dims),
                "more": _more(warm_up.inputs[name], ("data_type", "dims")),
            }
            for name in sorted(warm_up.inputs)
        ],
    }


def _enum(message: Any, field: str) -> str:  # noqa: ANN401
    kind = message.DESCRIPTOR.fields_by_name[field].enum_type
    number = getattr(message, field)
    value = kind.values_by_number.get(number)
    return str(value.name if value else number)


def _more(message: Any, written: Iterable[str]) -> list[str]:  # noqa: ANN401
    """The fields that no template knows, as lines."""
    from google.protobuf import text_format

    rest = type(message)()
    rest.CopyFrom(message)
    for field in written:
        if field in rest.DESCRIPTOR.fields_by_name:
            rest.ClearField(field)
    # Not splitlines, which would also cut strings at U+0085 and U+2028.
    return text_format.MessageToString(rest, as_utf8=True).rstrip("\n").split("\n") if rest.ListFields() else []
