from __future__ import annotations

import warnings

import pytest
from robustmm_plugins.methods._warmup import warn_if_never_past

from robustmm import Clock


def test_warn_if_never_past__names_what_has_no_effect() -> None:
    with pytest.warns(UserWarning, match="no effect") as caught:
        warn_if_never_past("dmrnet", 6, "the loss on hard combinations", Clock(0, 0, epochs=6, steps_per_epoch=3))
    assert str(caught[0].message) == (
        "dmrnet: the loss on hard combinations begins after 6 warm-up epochs and the run has 6, so it has no effect; "
        "train longer or lower method.warmup_epochs"
    )


@pytest.mark.parametrize("clock", [Clock(0, 0, 7, 3), Clock(1, 3, 6, 3)], ids=["long enough", "not the first step"])
def test_warn_if_never_past__is_silent(clock: Clock) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_never_past("dmrnet", 6, "the loss on hard combinations", clock)
