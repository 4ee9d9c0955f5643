from __future__ import annotations

from collections.abc import Callable
from typing import Self

import pytest
from pydantic import model_validator

from robustmm import Component, Options
from robustmm.config.component import check_options

Lines = Callable[..., list[str]]


@pytest.mark.parametrize(
    ("extra", "line"),
    [
        (
            "balancer: [none]",
            "a.yaml:5:11  balancer: expected the name of a balancer, or a mapping with 'name', got a list",
        ),
        (
            "balancer: null",
            "a.yaml:5:11  balancer: expected the name of a balancer, or a mapping with 'name', got null",
        ),
        (
            "balancer: {alpha: 1}",
            "a.yaml:5:1  balancer.name: required key is missing",
        ),
        (
            "balancer: {name: 3}",
            "a.yaml:5:18  balancer.name: expected the name of a balancer, got 3",
        ),
        (
            "balancer: {name: none, x: 3}",
            "a.yaml:5:24  balancer.x: unknown key; there are no options here",
        ),
        (
            "sampler: fixed",
            "a.yaml:5:10  sampler.name: unknown sampler 'fixed'. Known: complete, uniform",
        ),
        (
            "callbacks: console",
            "a.yaml:5:12  callbacks: expected a list, got 'console'",
        ),
        (
            "callbacks: [console, 4]",
            "a.yaml:5:22  callbacks.1: expected the name of a callback, or a mapping with 'name', got 4",
        ),
        (
            "model: [1]",
            "a.yaml:5:8  model: expected a mapping with the keys encoders, trunk, fusion, head, missing_policy "
            "and skip_absent, got a list",
        ),
        (
            "model: {encoders: {rgb: [mlp]}}",
            "a.yaml:5:25  model.encoders.rgb: expected the name of an encoder, or a mapping with 'name', got a list",
        ),
        (
            "model: {encoders: {image: mlp}}",
            "a.yaml:5:27  model.encoders.image.name: encoder 'mlp' takes vector, not image",
        ),
        (
            "model: {encoders: {default: {name: mlp, hidden: [8, -8]}}}",
            "a.yaml:5:53  model.encoders.default.hidden.1: expected a whole number greater than 0, got -8",
        ),
        (
            "evaluation: {combinations: some}",
            "a.yaml:5:28  evaluation.combinations: expected all or a list of texts, got 'some'",
        ),
        (
            "evaluation: {combinations: [a+b, a+]}",
            "a.yaml:5:34  evaluation.combinations.1: expected modalities joined by '+', each once, such as "
            "rgb+depth, got 'a+'",
        ),
        (
            "evaluation: {unimodal: 1}",
            "a.yaml:5:24  evaluation.unimodal: expected true or false, got 1",
        ),
        (
            "name: a/b",
            "a.yaml:5:7  name: string should match pattern '^[^/\\\\.][^/\\\\]*$', got 'a/b'",
        ),
        (
            "zzz: 1",
            "a.yaml:5:1  zzz: unknown key. Known: balancer, callbacks, data, evaluation, method, model, "
            "name, optimizer, sampler, schedule, seed, task, train",
        ),
        (
            "on: 1",
            "a.yaml:5:1  on: unknown key. Known: balancer, callbacks, data, evaluation, method, model, "
            "name, optimizer, sampler, schedule, seed, task, train",
        ),
    ],
)
def test_message__says_what_is_accepted(lines: Lines, complete: str, extra: str, line: str) -> None:
    assert lines(a=complete + extra) == [line]


@pytest.mark.parametrize(
    ("train", "line"),
    [
        (
            "epochs: 0",
            "a.yaml:4:17  train.epochs: expected a whole number at least 1, got 0",
        ),
        (
            "epochs: 1.5",
            "a.yaml:4:17  train.epochs: expected a whole number at least 1, got 1.5",
        ),
        (
            "epochs: true",
            "a.yaml:4:17  train.epochs: expected a whole number at least 1, got true",
        ),
        (
            "epochs: '3'",
            "a.yaml:4:17  train.epochs: expected a whole number at least 1, got '3'",
        ),
        (
            "epochs: 3, clip_norm: -1",
            "a.yaml:4:31  train.clip_norm: expected a number greater than 0, got -1",
        ),
        (
            "epochs: 3, precision: 16",
            "a.yaml:4:31  train.precision: expected 32, bf16-mixed or 16-mixed, got 16",
        ),
        (
            "epochs: 3, devices: all",
            "a.yaml:4:29  train.devices: expected a whole number at least 1 or auto or a list of whole "
            "numbers, got 'all'",
        ),
        (
            "epochs: 3, devices: []",
            "a.yaml:4:29  train.devices: expected a whole number at least 1 or auto or a list of whole numbers, "
            "got an empty list",
        ),
        (
            "epochs: 3, devices: [0, x]",
            "a.yaml:4:33  train.devices.1: expected a whole number at least 0, got 'x'",
        ),
        (
            "epochs: 3, early_stop: {min_delta: 1}",
            "a.yaml:4:20  train.early_stop.patience: required key is missing",
        ),
        (
            "epochs: 3, select: {every: 0}",
            "a.yaml:4:36  train.select.every: expected a whole number at least 1, got 0",
        ),
        (
            "epochs: 3, select: {mode: maxx}",
            "a.yaml:4:35  train.select.mode: expected max or min, got 'maxx' - did you mean 'max'?",
        ),
    ],
)
def test_message__checks_the_train_section(lines: Lines, complete: str, train: str, line: str) -> None:
    assert lines(a=complete.replace("epochs: 3", train)) == [line]


@pytest.mark.parametrize(
    ("method", "line"),
    [
        (
            "{name: dmrnet, kl_weight: -1}",
            "a.yaml:2:35  method.kl_weight: expected a number at least 0, got -1",
        ),
        (
            "{name: dmrnet, kl_weight: '1'}",
            "a.yaml:2:35  method.kl_weight: expected a number at least 0, got '1'",
        ),
        (
            "{name: dmrnet, detached: on}",
            "a.yaml:2:34  method.detached: expected true or false, got 'on'",
        ),
        (
            "{name: dmrnet, detached: 1}",
            "a.yaml:2:34  method.detached: expected true or false, got 1",
        ),
        (
            "{name: dmrnet, form: mask}",
            "a.yaml:2:30  method.form: expected masked or outer, got 'mask' - did you mean 'masked'?",
        ),
        (
            "{name: dmrnet, hard: mind}",
            "a.yaml:2:30  method.hard: expected mined or a list of texts, got 'mind' - did you mean 'mined'?",
        ),
        (
            "{name: dmrnet, hard: [a, 3]}",
            "a.yaml:2:34  method.hard.1: expected text, got 3",
        ),
        (
            "{name: dmrnet, weights: {taks: 1}}",
            "a.yaml:2:34  method.weights.taks: expected task or teacher as the key, got 'taks' - did you mean 'task'?",
        ),
        (
            "{name: dmrnet, weights: {task: x}}",
            "a.yaml:2:40  method.weights.task: expected a number, got 'x'",
        ),
        (
            "{name: dmrnet, hidden: []}",
            "a.yaml:2:32  method.hidden: expected at least 1 item(s), got 0",
        ),
        (
            "mmanet",
            "a.yaml:2:1  method.teacher: required key is missing",
        ),
    ],
)
def test_message__checks_the_options_of_components(lines: Lines, complete: str, method: str, line: str) -> None:
    assert lines(a=complete.replace("dmrnet", method)) == [line]


class Window(Options):
    """Two options that must fit each other."""

    first: int = 0
    last: int = 9

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.first > self.last:
            raise ValueError("First must not lie after last")
        return self


def test_check_options__options_that_do_not_fit_each_other_are_told_at_the_section() -> None:
    component = Component("window", object, Window, "A window.", "own")
    options, found = check_options(component, {"first": 10})
    assert options is None
    assert [(one.path, one.text) for one in found] == [((), "first must not lie after last")]
