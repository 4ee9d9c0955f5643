"""READ: the worked example, the released code's numbers, and what an update touches."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path
from typing import Any

import adapted
import pytest
import torch
from pydantic import ValidationError

from robustmm import Output
from robustmm.adaptation.stream import adapting
from robustmm.config.component import check_options
from robustmm.plugin_manager import get_plugins
from robustmm.testing import check_component

COMPONENT = get_plugins().registry.get("adapter", "read")
GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "read.json").read_text(encoding="utf-8"))
#: The worked example: probabilities, and a batch that has collapsed to one class.
SPREAD = [[0.7, 0.2, 0.1], [0.3, 0.35, 0.35], [0.1, 0.1, 0.8]]
COLLAPSED = [[0.98, 0.01, 0.01]] * 3


def read(**options: Any) -> Any:
    return adapted.build("adapter", "read", **options)


def as_output(logits: torch.Tensor) -> Output:
    return Output(logits, torch.ones(len(logits), 1, dtype=torch.bool), {}, [])


@pytest.mark.parametrize(
    ("probability", "balance", "expected"),
    [
        (SPREAD, "softmax_sum", -0.804462),
        (SPREAD, "mean", -0.798817),
        (COLLAPSED, "softmax_sum", -0.369516),
        (COLLAPSED, "mean", -0.092103),
    ],
)
def test_loss__worked_example(probability: list[list[float]], balance: str, expected: float) -> None:
    loss = read(balance=balance).loss(torch.tensor(probability).log())
    assert float(loss) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("balance", ["softmax_sum", "mean"])
def test_loss__collapsed_batch_is_worse_than_a_spread_one(balance: str) -> None:
    one = read(balance=balance)
    assert one.loss(torch.tensor(COLLAPSED).log()) > one.loss(torch.tensor(SPREAD).log())


def test_loss__weight_0_is_confidence_alone() -> None:
    loss = read(balance_weight=0).loss(torch.tensor(SPREAD).log())
    assert float(loss) == pytest.approx(0.265208, abs=1e-6)


@pytest.mark.parametrize(("largest", "slope"), [(0.7, -0.643325), (0.35, 0.049822), (math.exp(-1), 0.0)])
def test_loss__slope_turns_at_gamma(largest: float, slope: float) -> None:
    """By the chain rule over logits z_0 = log p + log(1 / rest): dL/dz_0 = dL/dp p (1 - p) for the largest class."""
    rest = (1 - largest) / 3
    logits = torch.tensor([[largest, rest, rest, rest]]).log().requires_grad_()
    (gradient,) = torch.autograd.grad(read(balance_weight=0).loss(logits), logits)
    assert float(gradient[0, 0]) == pytest.approx(slope * largest * (1 - largest), abs=1e-6)


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_loss__equals_the_released_code(name: str) -> None:
    case = GOLDEN[name]
    logits = torch.tensor(case["logits"], requires_grad=True)
    loss = read().loss(logits)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.item() == pytest.approx(case["loss"], abs=1e-5)
    torch.testing.assert_close(gradient, torch.tensor(case["gradient"]), rtol=1e-4, atol=1e-6)


@pytest.mark.filterwarnings("ignore:adapter read")
def test_loss__map_counts_position_by_position() -> None:
    logits = torch.randn(2, 3, 4, 5)
    rows = torch.stack([logits[b, :, y, x] for b in range(2) for y in range(4) for x in range(5)])
    torch.testing.assert_close(read().loss(logits), read().loss(rows))


# An update


def test_adapt__first_step_is_adams_and_the_second_pass_is_the_prediction() -> None:
    """Adam's first step moves every weight by lr against the sign of its gradient."""
    weight = torch.nn.Parameter(torch.randn(4, 3))
    x = torch.randn(5, 4)
    before = weight.detach().clone()
    (gradient,) = torch.autograd.grad(read().loss(x @ weight), weight)
    one = read(lr=0.01)
    one.prepare([weight])
    output = one.adapt(lambda: as_output(x @ weight))
    torch.testing.assert_close(weight.detach(), before - 0.01 * gradient.sign(), rtol=0, atol=1e-5)
    assert torch.equal(output.logits, x @ weight)
    assert not output.logits.requires_grad


@pytest.mark.parametrize("steps", [1, 3])
def test_adapt__makes_so_many_updates_and_one_prediction(steps: int) -> None:
    calls: list[bool] = []
    weight = torch.nn.Parameter(torch.randn(4, 3))
    x = torch.randn(5, 4)

    def predict() -> Output:
        calls.append(torch.is_grad_enabled())
        return as_output(x @ weight)

    one = read(steps=steps)
    one.prepare([weight])
    one.adapt(predict)
    assert calls == [True] * steps + [False]


def test_adapt__confident_samples_gain_and_balance_holds_a_collapse_back() -> None:
    x = torch.tensor([[2.0, 0.0, 0.0], [3.0, 0.0, 0.0], [1.0, 0.5, 0.0], [2.5, 0.0, 0.2]])
    largest = {}
    for weight in (0.0, 5.0):
        bias = torch.nn.Parameter(torch.zeros(3))
        one = read(lr=0.1, steps=5, balance_weight=weight)
        one.prepare([bias])
        largest[weight] = one.adapt(lambda bias=bias: as_output(x + bias)).logits.softmax(dim=1).amax(dim=1).mean()
    before = x.softmax(dim=1).amax(dim=1).mean()
    assert largest[0.0] > before > largest[5.0]


def test_adapt__nothing_adapted_in_the_prediction_changes_nothing() -> None:
    weight = torch.nn.Parameter(torch.randn(3))
    before = weight.detach().clone()
    one = read(lr=0.1)
    one.prepare([weight])
    logits = torch.randn(4, 3)
    assert torch.equal(one.adapt(lambda: as_output(logits)).logits, logits)
    assert torch.equal(weight, before)


def test_adapt__float16_updates_through_gradients_that_would_be_0() -> None:
    """So sure a prediction has a slope below the smallest float16, unless the loss is scaled."""
    bias = torch.nn.Parameter(torch.tensor([18.0, 0.0, 0.0]))
    one = read(lr=0.01, balance_weight=0)
    one.prepare([bias])
    one.adapt(lambda: as_output(bias.half().expand(5, 3)))
    assert bool((bias[1:] < -0.004).all())


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.filterwarnings("ignore:adapter read")
def test_adapt__changes_queries_keys_and_values_alone(dense: bool) -> None:
    method = adapted.model(dense=dense)
    before = adapted.state(method)
    data = adapted.batches(dense=dense)[0]
    with adapting(method, read(lr=0.01)) as predict:
        predict(data.inputs, data.observed, tuple(data.target.shape[1:]))
        changed = {name for name, value in method.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.split(".")[2] for name in changed} == {"queries", "keys", "values"}
    assert all(name.startswith("trunk.fusion.") for name in changed)


@pytest.mark.parametrize("count", [1, 3])
def test_adapt__one_modality_alone_is_defined(count: int) -> None:
    method = adapted.model(count)
    data = adapted.batches(count)[0]
    shown = torch.zeros_like(data.observed)
    shown[:, 0] = True
    with adapting(method, read(lr=0.01)) as predict:
        assert predict(data.inputs, shown).logits.isfinite().all()


# Options


def test_options__defaults_are_those_of_the_released_code() -> None:
    assert dict(COMPONENT.options()) == {
        "lr": 1e-4,
        "steps": 1,
        "gamma": math.exp(-1),
        "balance_weight": 1.0,
        "balance": "softmax_sum",
        "reset": "never",
    }


@pytest.mark.parametrize(
    ("key", "value"), [("lr", -1.0), ("steps", 0), ("gamma", 0.0), ("gamma", 1.0), ("balance_weight", -0.1)]
)
def test_options__refuse_what_has_no_meaning(key: str, value: float) -> None:
    with pytest.raises(ValidationError):
        COMPONENT.options(**{key: value})


def test_options__unknown_form_is_named() -> None:
    _, (complaint,) = check_options(COMPONENT, {"balance": "sum"})
    assert "softmax_sum" in complaint.text
    assert "mean" in complaint.text


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        ((1, 3), "a batch of one sample has no shares of classes to balance"),
        ((2, 3, 4, 4), "balance_weight is above 0 for dense prediction"),
    ],
)
def test_balance__warns_where_it_does_harm(shape: tuple[int, ...], text: str) -> None:
    logits = torch.randn(shape)
    with pytest.warns(UserWarning, match=text):
        read().loss(logits)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(balance_weight=0).loss(logits)
        read().loss(torch.randn(2, 3))


@pytest.mark.filterwarnings("ignore:adapter read")
def test_contract__holds_with_reset_and_without_balance() -> None:
    for options in ({"reset": "batch", "steps": 2}, {"balance_weight": 0.0, "lr": 0.1}):
        example = type("Example", (COMPONENT.options,), {"contract_example": classmethod(lambda cls, o=options: o)})
        check_component("adapter", type(COMPONENT)(**{**vars(COMPONENT), "options": example}))
