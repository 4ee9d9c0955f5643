import pytest
import torch
from pydantic import ValidationError
from robustmm_plugins.optim.adam import AdamOptions, build_adam
from robustmm_plugins.optim.adamw import AdamWOptions, build_adamw
from robustmm_plugins.optim.sgd import SGDOptions, build_sgd

OPTIMIZERS = {
    "sgd": (
        build_sgd,
        SGDOptions(lr=0.1, momentum=0.8, weight_decay=0.01, nesterov=True),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.8, weight_decay=0.01, nesterov=True),
    ),
    "sgd dampened": (
        build_sgd,
        SGDOptions(lr=0.1, momentum=0.8, dampening=0.5),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.8, dampening=0.5),
    ),
    "adam": (
        build_adam,
        AdamOptions(lr=0.1, betas=(0.8, 0.9), eps=1e-3, weight_decay=0.1, amsgrad=True),
        lambda p: torch.optim.Adam(p, lr=0.1, betas=(0.8, 0.9), eps=1e-3, weight_decay=0.1, amsgrad=True),
    ),
    "adamw": (
        build_adamw,
        AdamWOptions(lr=0.1, betas=(0.8, 0.9), eps=1e-3, weight_decay=0.1, amsgrad=True),
        lambda p: torch.optim.AdamW(p, lr=0.1, betas=(0.8, 0.9), eps=1e-3, weight_decay=0.1, amsgrad=True),
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer__every_option_reaches_torch(name):
    build, options, make = OPTIMIZERS[name]
    ours, theirs = (torch.nn.Parameter(torch.tensor([1.0, -2.0])) for _ in range(2))
    pairs = ((ours, build(parameters=[ours], **dict(options))), (theirs, make([theirs])))
    for _ in range(3):
        for parameter, optimizer in pairs:
            optimizer.zero_grad()
            parameter.pow(4).sum().backward()
            optimizer.step()
    assert type(pairs[0][1]) is type(pairs[1][1])
    assert ours.equal(theirs)


@pytest.mark.parametrize(
    ("options", "defaults"),
    [(SGDOptions, {"momentum": 0.9}), (AdamOptions, {"weight_decay": 0.0}), (AdamWOptions, {"weight_decay": 0.01})],
)
def test_optimizer__defaults(options, defaults):
    assert defaults.items() <= dict(options()).items()


@pytest.mark.parametrize(
    ("options", "given", "message"),
    [
        (SGDOptions, {"nesterov": True, "momentum": 0}, "nesterov needs momentum above 0 and dampening 0, got 0 and 0"),
        (SGDOptions, {"lr": 0}, "greater than 0"),
        (AdamOptions, {"betas": (0.9, 1.0)}, "less than 1"),
        (AdamWOptions, {"learning_rate": 1}, "Extra inputs"),
    ],
)
def test_optimizer__refuses_impossible_options(options, given, message):
    with pytest.raises(ValidationError, match=message):
        options(**given)
