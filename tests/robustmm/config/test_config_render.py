from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from robustmm.config.document import parse
from robustmm.config.load import LoadedConfig, config_from_mapping
from robustmm.config.render import json_schema, to_yaml
from robustmm.config.tree import plain
from robustmm.registry import Registry

Load = Callable[..., LoadedConfig]

WORDS = st.text(st.characters(exclude_characters="+/\\\x00", exclude_categories=["Cs"]), min_size=1, max_size=8)
POSITIVE = st.floats(1e-12, 1e12)
DATA = st.fixed_dictionaries(
    {"dataset": st.just("digits") | st.fixed_dictionaries({"name": st.just("digits"), "fold": st.integers(0, 9)})},
    optional={"modalities": st.lists(WORDS, min_size=1, max_size=3, unique=True), "pin_memory": st.booleans()},
)
ENCODER = st.fixed_dictionaries(
    {"name": st.just("mlp")}, optional={"note": st.text(), "hidden": st.lists(st.integers(1, 9))}
)
ENCODER_KEYS = WORDS.filter(lambda word: word not in ("image", "spectrogram", "sequence"))  # kinds that mlp refuses
TRAIN = st.fixed_dictionaries(
    {"epochs": st.integers(1, 10**6)},
    optional={
        "clip_norm": st.none() | POSITIVE,
        "devices": st.just("auto") | st.integers(1, 8) | st.lists(st.integers(0, 7), min_size=1),
        "precision": st.sampled_from([32, "32", "bf16-mixed"]),
        "early_stop": st.none() | st.just({"patience": 3}),
    },
)
CONFIGS = st.fixed_dictionaries(
    {
        "data": DATA,
        "method": st.sampled_from(["plain", "dmrnet", {"name": "mmanet", "teacher": "runs/on"}]),
        "optimizer": st.fixed_dictionaries({"name": st.just("adam"), "lr": POSITIVE}),
        "train": TRAIN,
    },
    optional={
        "seed": st.integers(0, 2**40),
        "name": WORDS.filter(lambda word: not word.startswith(".") and "\n" not in word),
        "sampler": st.sampled_from([None, "uniform"]),
        "model": st.fixed_dictionaries({"encoders": st.dictionaries(ENCODER_KEYS, ENCODER, max_size=2)}),
        "evaluation": st.just({"combinations": ["a", "a+b"], "metrics": ["brier"]}),
        "callbacks": st.lists(st.sampled_from(["console", "jsonl"]), max_size=2),
    },
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=CONFIGS)
def test_to_yaml__loads_to_an_equal_configuration(registry: Registry, data: dict[str, Any]) -> None:
    config = config_from_mapping(data, registry)
    text = to_yaml(config)
    root, problems = parse(text, "")
    assert root is not None
    assert problems == []
    assert config_from_mapping(plain(root), registry) == config
    assert to_yaml(config_from_mapping(plain(root), registry)) == text


def test_to_yaml__fills_every_default_in_the_order_of_the_schema(load: Load, complete: str) -> None:
    text = to_yaml(load(a=complete).config)
    assert text.startswith("name: a\nseed: 0\ndata:\n  dataset:\n    name: digits\n    fold: 0\n    folder: null\n")
    assert "\noptimizer:\n  name: adam\n  lr: 0.01\n  betas: [0.9, 0.999]\n" in text
    assert "callbacks:\n  - name: console\n" in text
    assert "#" not in text


def test_to_yaml__is_read_alike_by_other_yaml_readers(load: Load, complete: str) -> None:
    loaded = load(a=complete + "model: {encoders: {'on': {name: mlp, note: '1e-3'}, 'no': mlp}}\n")
    read = yaml.safe_load(to_yaml(loaded.config))
    assert read["model"]["encoders"]["on"]["note"] == "1e-3"
    assert list(read["model"]["encoders"]) == ["on", "no"]
    assert read["train"]["precision"] == "32"


def test_to_yaml__says_where_each_value_comes_from(load: Load, complete: str) -> None:
    loaded = load(a=complete + "callbacks: [console]\n", o=("train.threads=2", "callbacks=[jsonl]"))
    said = {
        line.split("#")[0].strip(): line.split("# ")[1]
        for line in to_yaml(loaded.config, loaded.provenance).splitlines()
        if "#" in line
    }
    assert said["lr: 0.01"] == "a.yaml:3:29"
    assert said["threads: 2"] == "-o train.threads=2"
    assert said["betas: [0.9, 0.999]"] == "default"
    assert said["- name: jsonl"] == "-o callbacks=[jsonl]"
    assert said["epochs: 3"] == "a.yaml:4:17"


def test_to_yaml__names_both_places_of_a_list_that_was_changed_in_part(load: Load, complete: str) -> None:
    loaded = load(a=complete.replace("lr: 1e-2", "betas: [0.9, 0.99]"), o=("optimizer.betas.0=0.5",))
    text = to_yaml(loaded.config, loaded.provenance)
    assert "betas: [0.5, 0.99]" in text
    assert "# a.yaml:3:32, -o optimizer.betas.0=0.5\n" in text


def test_to_yaml__with_origins_still_loads(load: Load, folder: Path, complete: str) -> None:
    loaded = load(a=complete)
    (folder / "b.yaml").write_text(to_yaml(loaded.config, loaded.provenance), encoding="utf-8")
    assert load(("b",)).config == loaded.config


def test_json_schema__offers_each_component_with_its_own_options(registry: Registry) -> None:
    schema = json_schema(registry)
    assert schema["properties"]["optimizer"]["$ref"] == "#/$defs/component.optimizer"
    names, adam, sgd, unnamed = schema["$defs"]["component.optimizer"]["oneOf"]
    assert names == {"type": "string", "enum": ["adam", "sgd"]}
    assert adam["properties"]["name"] == {"const": "adam"}
    assert adam["properties"]["lr"]["exclusiveMinimum"] == 0
    assert set(sgd["properties"]) == {"name", "lr", "momentum"}
    assert sgd["additionalProperties"] is False
    assert unnamed["not"] == {"required": ["name"]}


def test_json_schema__asks_for_required_keys_unless_a_file_is_extended(registry: Registry) -> None:
    schema = json_schema(registry)
    assert schema["anyOf"] == [{"required": ["extends"]}, {"required": ["data", "method", "optimizer", "train"]}]
    assert "extends" in schema["properties"]


def test_json_schema__describes_every_key_and_refers_only_to_what_it_defines(registry: Registry) -> None:
    schema = json_schema(registry)
    for section in (schema, *(one for name, one in schema["$defs"].items() if name.endswith("Section"))):
        for key, field in section["properties"].items():
            assert field.get("description") or "$ref" in field, key
    text = json.dumps(schema)
    references = {part.split('"')[0] for part in text.split('"$ref": "#/$defs/')[1:]}
    assert references <= schema["$defs"].keys()
    assert "x-robustmm" not in text
