"""Combinations that cannot be evaluated as asked."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from robustmm.build import _combinations
from robustmm.errors import ConfigError


def asked(combinations: Any) -> Any:
    return cast(Any, SimpleNamespace(evaluation=SimpleNamespace(combinations=combinations)))


def test_combinations__all_of_many_modalities_is_refused_with_their_number() -> None:
    names = tuple(f"m{number}" for number in range(16))
    with pytest.raises(ConfigError, match=r"65,535 combinations of 16 modalities; all is for at most 12"):
        _combinations(asked("all"), names)
    assert _combinations(asked(("m0+m15",)), names) == [("m0", "m15")]


def test_combinations__one_that_stands_twice_in_another_order_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"rgb\+depth stands twice, as 'rgb\+depth'"):
        _combinations(asked(("rgb+depth", "depth+rgb")), ("rgb", "depth"))
