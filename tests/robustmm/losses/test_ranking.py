"""Ranking of confidence by history."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from robustmm.errors import ShapeError
from robustmm.losses.ranking import confidence_ranking, normalised_history

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "qmf.json").read_text())
#: Histories 1, 3, 2, normalised.
HISTORY = torch.tensor([0.0, 1.0, 0.5])


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_normalised_history__matches_the_released_code() -> None:
    case = GOLDEN["history"]
    history = torch.zeros(7, dtype=torch.float64)
    for step in case["steps"]:
        history.index_add_(0, torch.tensor(step["index"]), torch.tensor(step["losses"], dtype=torch.float64))
        assert history.tolist() == step["history"]
    expected = torch.tensor(case["normalised"], dtype=torch.float64)
    torch.testing.assert_close(normalised_history(history), expected, atol=1e-11, rtol=0)


@pytest.mark.parametrize("case", GOLDEN["rank_loss"]["cases"], ids=["first", "second", "third"])
def test_confidence_ranking__released_form_matches_in_value_and_gradient(case: dict) -> None:
    history = normalised_history(torch.tensor(GOLDEN["rank_loss"]["history"], dtype=torch.float64))
    confidence = torch.tensor(case["confidence"], dtype=torch.float64, requires_grad=True)
    loss = confidence_ranking(confidence, history[GOLDEN["rank_loss"]["index"]], form="code")
    loss.backward()
    # The released margins are rounded to float32.
    assert loss.item() == pytest.approx(case["loss"], abs=1e-7)
    torch.testing.assert_close(confidence.grad, torch.tensor(case["gradient"], dtype=torch.float64), atol=1e-7, rtol=0)


@pytest.mark.parametrize(
    ("confidence", "paper", "code"),
    [
        ([0.5, 0.2, 0.4], (0.7 + 0.3 + 0.4) / 3, 0.0),
        ([0.2, 0.5, 0.4], (1.3 + 0.6 + 0.7) / 3, 0.0),
        ([0.2, 1.5, 0.4], (2.3 + 1.6 + 0.7) / 3, 0.3),
    ],
)
def test_confidence_ranking__worked_example(confidence: list[float], paper: float, code: float) -> None:
    given = torch.tensor(confidence)
    assert normalised_history(torch.tensor([1.0, 3.0, 2.0])).tolist() == HISTORY.tolist()
    assert confidence_ranking(given, HISTORY).item() == pytest.approx(paper, abs=1e-6)
    assert confidence_ranking(given, HISTORY, form="code").item() == pytest.approx(code, abs=1e-6)


def test_confidence_ranking__is_zero_once_the_gaps_are_wide_enough() -> None:
    confidence = torch.tensor([1.2, -0.1, 0.5], requires_grad=True)  # falls by more than history rises
    loss = confidence_ranking(confidence, HISTORY)
    loss.backward()
    assert loss.item() == 0.0
    assert confidence.grad is not None
    assert not confidence.grad.any()


def test_confidence_ranking__makes_the_harder_sample_less_confident() -> None:
    confidence = torch.tensor([0.4, 0.4], requires_grad=True)
    confidence_ranking(confidence, torch.tensor([0.9, 0.1])).backward()
    assert confidence.grad is not None
    assert confidence.grad[0] > 0 > confidence.grad[1]


def test_first_batch__has_no_history_and_a_finite_loss() -> None:
    history = normalised_history(torch.zeros(5))
    assert history.tolist() == [0.0] * 5
    assert confidence_ranking(drawn(5), history).item() == 0.0
    assert normalised_history(torch.zeros(0)).shape == (0,)


@pytest.mark.parametrize("form", ["paper", "code"])
def test_confidence_ranking__absent_samples_leave_the_pairing(form: str) -> None:
    confidence, history = 3 * drawn(8), drawn(8, seed=1)
    presence = torch.tensor([False, True, True, False, False, True, True, False])
    broken = confidence.masked_fill(~presence, torch.nan).requires_grad_()
    loss = confidence_ranking(broken, history.masked_fill(~presence, torch.nan), form=form, presence=presence)
    loss.backward()
    fewer = confidence[presence].requires_grad_()
    expected = confidence_ranking(fewer, history[presence], form=form)
    expected.backward()
    torch.testing.assert_close(loss, expected)
    assert broken.grad is not None
    torch.testing.assert_close(broken.grad[presence], fewer.grad)
    assert not broken.grad[~presence].any()


@pytest.mark.parametrize("presence", [[False, False, False], [False, True, False]])
def test_confidence_ranking__of_fewer_than_two_samples_is_zero(presence: list[bool]) -> None:
    confidence = torch.tensor([0.1, 0.9, 0.5], requires_grad=True)
    loss = confidence_ranking(confidence, HISTORY, presence=torch.tensor(presence))
    loss.backward()
    assert loss.item() == 0.0
    assert confidence.grad is not None
    assert not confidence.grad.any()
    assert confidence_ranking(confidence[:0], HISTORY[:0]).item() == 0.0


@pytest.mark.parametrize("form", ["paper", "code"])
def test_confidence_ranking__ignores_a_shift_of_confidence_and_a_turn_of_the_batch(form: str) -> None:
    confidence, history = drawn(9).double(), drawn(9, seed=1).double()
    expected = confidence_ranking(confidence, history, form=form)
    torch.testing.assert_close(confidence_ranking(confidence + 5, history, form=form), expected)
    torch.testing.assert_close(confidence_ranking(confidence.roll(4), history.roll(4), form=form), expected)


def test_confidence_ranking__sends_no_gradient_into_the_history() -> None:
    confidence, history = drawn(4).requires_grad_(), drawn(4, seed=1).requires_grad_()
    confidence_ranking(confidence, history).backward()
    assert history.grad is None
    assert not normalised_history(history).requires_grad


def test_confidence_ranking__keeps_full_precision_under_autocast() -> None:
    confidence, history = drawn(64), drawn(64, seed=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = confidence_ranking(confidence, history)
        of_half = confidence_ranking(confidence.bfloat16(), history)
    assert torch.equal(value, confidence_ranking(confidence, history))
    assert of_half.dtype == torch.float32


def test_confidence_ranking__refuses_shapes_that_do_not_fit() -> None:
    with pytest.raises(ShapeError, match=r"are \(3, 1\), \(3,\), \(3, 1\); all must be \(R,\)"):
        confidence_ranking(torch.zeros(3, 1), torch.zeros(3))
