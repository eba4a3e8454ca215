"""Steps and signatures → tensors, or every error at once."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_graphs import signature

from builder.ensembles.flat import flat_steps
from builder.ensembles.wiring import Wiring, wire, wire_all
from builder.tensors import Signature
from builder.work import EnsembleRef, StepRef

DECODE = signature(["jpeg:string:batch"], ["pixels:float32:batch,3,8,8"])
CLASSIFY = signature(["image:float32:batch,3,8,8"], ["logits:float32:batch,5"])
TOP = signature(["logits:float32:n,5"], ["label:string:n,1", "score:float32:n,1"])
MODELS = {"decode": DECODE, "classifier": CLASSIFY, "top": TOP}


def step(member: str, *wires: str, inputs: Mapping[str, str] | None = None, **outputs: str) -> StepRef:
    return StepRef(member, wires, tuple((inputs or {}).items()), tuple(outputs.items()))


def ref(*steps: StepRef, name: str = "e", inputs: tuple[str, ...] = (), outputs: tuple[str, ...] = ()) -> EnsembleRef:
    return EnsembleRef(name, steps, inputs, outputs)


def wired(ensemble: EnsembleRef, models: Mapping[str, Signature] = MODELS) -> Wiring:
    wiring, problems = wire(ensemble, models)
    assert not problems, problems
    assert wiring is not None
    return wiring


def said(ensemble: EnsembleRef, models: Mapping[str, Signature] = MODELS) -> list[tuple[object, str, str]]:
    wiring, problems = wire(ensemble, models)
    assert wiring is None
    return [(problem.path, problem.message, problem.remedy) for problem in problems]


PHOTO = ref(step("decode"), step("classifier", "pixels -> image"), step("top"))


def test_tensors_of_one_name_are_wired_and_the_ends_are_what_is_left() -> None:
    wiring = wired(PHOTO)
    assert wiring.signature.describe() == "jpeg string[batch] → label string[batch,1], score float32[batch,1]"
    assert [dict(item.inputs) for item in wiring.steps] == [
        {"jpeg": "jpeg"},
        {"image": "pixels"},
        {"logits": "logits"},
    ]


def test_an_arrow_at_an_output_names_a_tensor() -> None:
    wiring = wired(ref(step("classifier", "photo->image", "logits -> scores")))
    assert [item.name for item in wiring.signature.tensors] == ["photo", "scores"]


def test_tensors_between_steps_can_be_outputs_and_unused_ones_are_left_out() -> None:
    wiring = wired(ref(step("decode"), step("classifier", "pixels -> image"), step("top"), outputs=("score", "logits")))
    assert [item.name for item in wiring.signature.outputs] == ["score", "logits"]
    assert dict(wiring.steps[2].outputs) == {"score": "score"}


def test_sizes_that_one_end_fixes_are_fixed_and_axes_of_different_members_stay_apart() -> None:
    models = {
        "a": signature(["x:float32:batch,length"], ["y:float32:batch,length"]),
        "b": signature(["x:float32:batch,16"], ["z:float32:batch,length"]),
    }
    wiring = wired(ref(step("a"), step("b")), models)
    assert wiring.signature.describe() == ("x float32[batch,16] → y float32[batch,length], z float32[batch,length_2]")


def test_readers_of_one_tensor_that_no_size_suits_are_refused() -> None:
    models = {
        "a": signature(["x:float32:batch,n"], ["y:float32:batch,n"]),
        "b": signature(["y:float32:batch,16"], ["u:float32:batch,16"]),
        "c": signature(["y:float32:batch,32"], ["v:float32:batch,32"]),
    }
    ((path, text, _),) = said(ref(step("a"), step("b"), step("c")), models)
    assert path == ("steps", 2)
    assert "b takes y float32[batch,16], c takes y float32[batch,32]: axis 1 is 16 and 32" in text


def test_what_is_no_batch_axis_for_all_is_none() -> None:
    models = {"a": signature(["x:float32:batch,4", "k:int64:"], ["y:float32:batch,4"])}
    assert not wired(ref(step("a")), models).signature.has_batch_axis


@pytest.mark.parametrize(
    ("ensemble", "where", "words", "remedy"),
    [
        (ref(step("classifier", "logits -> image")), 0, "two meanings", "inputs: {image: logits}"),
        (ref(step("classifier", "pixels -> imag")), 0, "did you mean 'image'?", "it takes image and gives logits"),
        (ref(step("classifier", inputs={"imag": "x"})), 0, "no input 'imag'; did you mean 'image'?", "image"),
        (ref(step("classifier", logit="x")), 0, "no output 'logit'; did you mean 'logits'?", "logits"),
        (ref(step("classifier", "a -> image", "b -> image")), 0, "wired to 'a' and to 'b'", "keep one"),
        (ref(step("decode"), step("top", "pixels -> logits")), 1, ("decode gives pixels float32[batch,3,8,8], "
         "top takes logits float32[n,5]: 4 and 2 dimensions"), "step between"),
        (ref(step("decode"), step("classifier", "jpeg -> image")), 1, "the dtypes string and float32 differ", "step"),
        (ref(step("classifier"), step("classifier", "x -> image")), 1,
         "'logits' is given twice: by step 1 (classifier)",
         "classifier: {outputs: {logits: OTHER}}"),
        (ref(step("top"), step("classifier")), 0, "step 1 (top) takes 'logits', which step 2 (classifier) below gives",
         "move classifier above it"),
        (ref(step("classifier", "logits -> image2"), step("classifier", "image2 -> image", logits="image")), 0,
         "gives only after it: a circle", "take a step out"),
        (ref(step("classifier", logits="image")), 0, "takes 'image' and gives 'image'", "OTHER"),
        (ref(step("decode"), step("classifier"), inputs=("jpeg",)), 1, ("nothing feeds 'image', which "
         "classifier takes image float32[batch,3,8,8]"), "classifier: [TENSOR -> image]"),
        (ref(step("decode"), step("classifier"), outputs=("logits",)), 0, "nothing that decode gives is used (pixels)",
         "take it out"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_step_is_said_at_it(ensemble: EnsembleRef, where: int, words: str, remedy: str) -> None:
    found = said(ensemble)
    assert any(path[:2] == ("steps", where) and words in text and remedy in cure for path, text, cure in found), found


@pytest.mark.parametrize(
    ("ensemble", "path", "words"),
    [
        (ref(step("decode"), inputs=("jpg",)), ("inputs", 0), "no step takes 'jpg'; did you mean 'jpeg'?"),
        (ref(step("decode"), inputs=("jpeg", "pixels")), ("inputs", 1), "'pixels' is given by step 1 (decode)"),
        (ref(step("decode"), outputs=("pixel",)), ("outputs", 0), "no step gives 'pixel'; did you mean 'pixels'?"),
    ],
)
def test_what_is_wrong_with_the_ends_is_said_at_them(
    ensemble: EnsembleRef, path: tuple[object, ...], words: str
) -> None:
    assert (path, words) in [(where, text) for where, text, _ in said(ensemble)]


def test_every_error_is_said_at_once() -> None:
    found = said(ref(step("classifier", "a -> imag", "b -> logit"), step("top", "x -> y"), inputs=("never",)))
    assert len(found) >= 4


def test_a_wire_that_nearly_names_a_tensor_above_is_worth_a_word() -> None:
    (note,) = wired(ref(step("decode"), step("classifier", "pixel -> image"))).notes
    assert "'pixel' is taken as an input of the ensemble; if 'pixels' is meant" in note
    assert not wired(PHOTO).notes


def test_an_ensemble_inside_another_is_laid_out_as_its_models() -> None:
    outer = ref(step("e", "jpeg -> jpeg", label="name"), step("decode", inputs={"jpeg": "other"}), name="outer")
    wirings, problems = wire_all((outer, PHOTO), MODELS)
    assert not problems
    flat = flat_steps("outer", wirings)
    assert [item.member for item in flat] == ["decode", "classifier", "top", "decode"]
    assert dict(flat[0].inputs) == {"jpeg": "jpeg"}
    assert flat[0].outputs[0][1] == flat[1].inputs[0][1] not in dict(flat[3].outputs).values()
    assert dict(flat[2].outputs) == {"label": "name", "score": "score"}


def test_an_ensemble_of_a_wrong_one_says_nothing_more() -> None:
    wrong = ref(step("classifier", "a -> nothing"), name="wrong")
    _, problems = wire_all((ref(step("wrong"), name="outer"), wrong), MODELS)
    assert len(problems["wrong"]) == 1
    assert problems["outer"] == ()


@st.composite
def chains(draw: st.DrawFn) -> tuple[EnsembleRef, dict[str, Signature]]:
    """Models with one input and some outputs, each fed by any tensor that was made before or by a new one."""
    models: dict[str, Signature] = {}
    steps, tensors = [], ["start"]
    for number in range(draw(st.integers(1, 6))):
        outputs = [f"o{index}:float32:batch,4" for index in range(draw(st.integers(1, 3)))]
        models[f"m{number}"] = signature(["x:float32:batch,4"], outputs)
        source = draw(st.sampled_from([*tensors, f"in{number}"]))
        named = {f"o{index}": f"t{number}_{index}" for index in range(len(outputs))}
        steps.append(step(f"m{number}", inputs={"x": source}, **named))
        tensors += named.values()
    return ref(*steps), models


@given(chains())
def test_every_tensor_of_a_right_ensemble_has_one_maker_and_one_use(
    made: tuple[EnsembleRef, dict[str, Signature]],
) -> None:
    wiring = wired(*made)
    given_by = [name for item in wiring.steps for _, name in item.outputs]
    taken = {name for item in wiring.steps for _, name in item.inputs}
    inputs = {item.name for item in wiring.signature.inputs}
    outputs = {item.name for item in wiring.signature.outputs}
    assert len(given_by) == len(set(given_by))
    assert taken <= inputs | set(given_by)
    assert not inputs & set(given_by)
    assert set(given_by) <= taken | outputs
    assert outputs <= set(given_by)


@given(chains(), st.randoms())
def test_any_other_order_is_right_too_or_refused(
    made: tuple[EnsembleRef, dict[str, Signature]], shuffle: object
) -> None:
    ensemble, models = made
    steps = list(ensemble.steps)
    shuffle.shuffle(steps)  # type: ignore[attr-defined]
    wiring, problems = wire(EnsembleRef("e", tuple(steps)), models)
    right, _ = wire(ensemble, models)
    assert right is not None
    if wiring is None:
        assert all("order of the data" in problem.message for problem in problems)
    else:
        assert set(wiring.signature.inputs) == set(right.signature.inputs)
        assert set(wiring.signature.outputs) == set(right.signature.outputs)
