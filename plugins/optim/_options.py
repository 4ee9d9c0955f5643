"""Options that the optimisers of this folder share, and their help texts."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

#: Exponential decay of a running mean.
Beta = Annotated[float, Field(ge=0, lt=1)]

LR_HELP = "learning rate before the schedule's factor; nothing rescales it"
WEIGHT_DECAY_HELP = "L2 penalty, added to the gradient"
EPS_HELP = "added to the denominator for stability"
BETAS_HELP = "decay of the running means of the gradient and of its square"
AMSGRAD_HELP = "divide by the largest mean square seen so far"
