from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from robustmm.config.load import LoadedConfig
from robustmm.config.starter import PLACEHOLDER, starter
from robustmm.errors import ConfigError
from robustmm.registry import Registry

Load = Callable[..., LoadedConfig]


@pytest.mark.parametrize("method", ["plain", "dmrnet", "mmanet"])
def test_starter__loads(load: Load, registry: Registry, method: str) -> None:
    config = load(a=starter("digits", method, "a.yaml", registry)).config
    assert (config.method.name, config.data.dataset.name) == (method, "digits")


def test_starter__loads_to_the_same_with_its_option_lines_uncommented(load: Load, registry: Registry) -> None:
    text = starter("digits", "dmrnet", "a.yaml", registry)
    option = re.compile(r"^( +)# (?=(?:fold|folder|kl_weight|form|hard|detached|lr|betas):)", flags=re.MULTILINE)
    uncommented, count = option.subn(r"\1", text)
    assert count == 8
    assert load(a=uncommented).config == load(a=text).config


def test_starter__loads_with_every_suggestion_taken(load: Load, registry: Registry) -> None:
    text = starter("digits", "dmrnet", "a.yaml", registry)
    taken = re.sub(r"^( *)# (?! )(?=(?:[a-z_]+: ?|  )\S|model:)", r"\1", text, flags=re.MULTILINE)
    taken = re.sub(r"^# (?= +[a-z]+:)", "", taken, flags=re.MULTILINE)
    config = load(a="\n".join(line for line in taken.splitlines() if "dmrnet on" not in line)).config
    assert config.model.encoders["vector"].name == "mlp"
    assert config.train.early_stop is not None


def test_starter__marks_what_must_be_filled_in(registry: Registry) -> None:
    assert f"  teacher: {PLACEHOLDER}" in starter("digits", "mmanet", "a.yaml", registry)


def test_starter__refuses_unknown_names(registry: Registry) -> None:
    with pytest.raises(ConfigError, match="unknown dataset 'digit' - did you mean 'digits'"):
        starter("digit", "plain", "a.yaml", registry)
