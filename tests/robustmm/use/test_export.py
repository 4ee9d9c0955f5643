"""Every method that can be exported predicts the same as a file, on every combination and in batches of every size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import yaml
from cli_runs import TINY, merged
from torch import Tensor

from robustmm import Method, Modality, RobustmmError, RunFailed, Scaling
from robustmm.config.load import load_config
from robustmm.network import untrained
from robustmm.plugin_manager import load_plugins
from robustmm.registry import Registry
from robustmm.signature import Signature
from robustmm.use.export import METADATA, Deployed, export_model, exported_program
from robustmm.use.export_check import Compare, check_program

Form = Literal["global", "dense late", "dense stagewise"]
SMALL_MAPS: dict[str, Any] = {"default": {"name": "small_cnn", "widths": [4, 8, 8]}}
STAGEWISE: dict[str, Any] = {
    "encoders": SMALL_MAPS,
    "trunk": {"name": "esanet", "skip_channels": [8], "context": "ppm", "context_channels": 8, "bins": [1, 2]},
    "fusion": "se_add",
    "head": {"name": "linear"},
}
REGISTRY = load_plugins(env={}, entry_points=()).registry
#: What methods must be told, and parts that they cannot do without.
OPTIONS: dict[str, dict[str, Any]] = {"one_stage_distillation": {"available": "m0"}}
NEEDS: dict[str, dict[str, Any]] = {"mmcosine": {"head": "cosine"}}
#: Refuses with a reason; tested apart.
NO_GRAPH = "cpm_nets"


def forms(name: str, registry: Registry = REGISTRY) -> list[Form]:
    """Where a method works; with a trunk of its own, or encoders that are not fused, not stage by stage."""
    requires = registry.get("method", name).requires
    if "task:regression" in requires:
        return ["global"]
    apart = "separate_encoders" in requires or name == "one_stage_distillation"
    return ["global", "dense late", *([] if apart else ["dense stagewise"])]


def every(*kept: Form) -> list[Any]:
    """Methods with forms."""
    return [
        pytest.param(method.name, form, id=f"{method.name}, {form}")
        for method in REGISTRY.all("method")
        if method.name != NO_GRAPH
        for form in forms(method.name)
        if form in kept
    ]


#: One dense form of each method: the one stage by stage where there is one.
DENSE = [
    pytest.param(one.name, forms(one.name)[-1])
    for one in REGISTRY.all("method")
    if len(forms(one.name)) > 1 and one.name != NO_GRAPH
]


def signature_of(task: str, form: Form, count: int = 2) -> Signature:
    image = form != "global"
    shape = (3, 16, 16) if image else (5,)
    scaling = Scaling("constants", (1.0,) * shape[0], (2.0,) * shape[0], invalid=0.0)
    modalities = tuple(Modality(f"m{place}", "image" if image else "vector", shape, scaling) for place in range(count))
    return Signature(modalities, task, ("a", "b", "c"), samples=4)


def model(tmp_path: Path, name: str, form: Form, *, count: int = 2, **changes: Any) -> tuple[Method, Signature]:
    """A model of random weights."""
    regression = "task:regression" in REGISTRY.get("method", name).requires
    task = "regression" if regression else "classification" if form == "global" else "segmentation"
    model_of: dict[Form, dict[str, Any]] = {
        "global": {},
        "dense late": {"encoders": SMALL_MAPS, "fusion": "add", "head": "linear"},
        "dense stagewise": STAGEWISE,
    }
    chosen = merged(model_of[form], {**NEEDS.get(name, {}), **changes})
    section = {"name": name, **OPTIONS.get(name, {})}
    path = tmp_path / "model.yaml"
    path.write_text(yaml.safe_dump({**TINY, "method": section, "task": task, "model": chosen}), encoding="utf-8")
    signature = signature_of(task, form, count)
    torch.manual_seed(0)
    made = untrained(load_config([path], [], REGISTRY).config, REGISTRY, signature).deployable().eval()
    return made, signature


def exported(tmp_path: Path, made: Method, signature: Signature, form: Literal["onnx", "torch"], **options: Any) -> Any:
    return export_model(made, signature, tmp_path / "out" / f"model.{form}.pt2", form, **options)


@pytest.mark.parametrize(("method", "form"), [*every("global"), *DENSE])
def test_torch__predicts_as_the_model(tmp_path: Path, method: str, form: Form) -> None:
    made, signature = model(tmp_path, method, form)
    difference = exported(tmp_path, made, signature, "torch").differences["random"]
    assert difference.combinations == 3
    assert difference.samples == 6
    assert difference.small


@pytest.mark.slow
@pytest.mark.parametrize(("method", "form"), every("dense late"))
def test_torch__predicts_as_the_model_with_late_maps(tmp_path: Path, method: str, form: Form) -> None:
    made, signature = model(tmp_path, method, form)
    assert exported(tmp_path, made, signature, "torch").differences["random"].small


@pytest.mark.slow
@pytest.mark.parametrize(("method", "form"), every("global", "dense late", "dense stagewise"))
def test_onnx__predicts_as_the_model(tmp_path: Path, method: str, form: Form) -> None:
    pytest.importorskip("onnxruntime")
    made, signature = model(tmp_path, method, form)
    assert exported(tmp_path, made, signature, "onnx").differences["random"].small


@pytest.mark.parametrize(("method", "form"), [("dmrnet", "global"), ("tmc", "dense late")])
def test_onnx__predicts_as_the_model_of_two_kinds(tmp_path: Path, method: str, form: Form) -> None:
    test_onnx__predicts_as_the_model(tmp_path, method, form)


@pytest.mark.parametrize("policy", [component.name for component in REGISTRY.all("missing_policy")])
def test_torch__every_missing_policy(tmp_path: Path, policy: str) -> None:
    made, signature = model(tmp_path, "plain", "global", missing_policy=policy)
    assert exported(tmp_path, made, signature, "torch").differences["random"].small


@pytest.mark.slow
@pytest.mark.parametrize("fusion", [component.name for component in REGISTRY.all("fusion")])
def test_torch__every_fusion(tmp_path: Path, fusion: str) -> None:
    suits = REGISTRY.get("fusion", fusion).suits
    form: Form = "global" if not suits or "vector" in suits else "dense late"
    made, signature = model(tmp_path, "plain", form, count=3, fusion=fusion)
    difference = exported(tmp_path, made, signature, "torch").differences["random"]
    assert difference.combinations == 7
    assert difference.small


@pytest.mark.slow
@pytest.mark.parametrize("head", [component.name for component in REGISTRY.all("head")])
def test_torch__every_head(tmp_path: Path, head: str) -> None:
    suits = REGISTRY.get("head", head).suits
    form: Form = "dense stagewise" if not suits or "dense" in suits else "global"
    deep = {"encoders": {"default": {"name": "small_cnn", "widths": [4, 8, 8, 8]}}} if head == "fpn" else {}
    late: Form = "dense late" if deep else form
    made, signature = model(tmp_path, "plain", late, head=head, **deep)
    assert exported(tmp_path, made, signature, "torch").differences["random"].small


def test_torch__holds_what_another_program_must_know(tmp_path: Path) -> None:
    made, signature = model(tmp_path, "plain", "global")
    path = exported(tmp_path, made, signature, "torch").path
    extra = {METADATA: ""}
    program = torch.export.load(path, extra_files=extra).module()
    facts = json.loads(extra[METADATA])
    assert facts["inputs"] == {"m0": ["batch", 5], "m1": ["batch", 5], "presence": ["batch", 2]}
    assert facts["outputs"] == ["logits", "probabilities"]
    assert facts["signature"]["classes"] == ["a", "b", "c"]
    logits, probabilities = program(torch.ones(1, 5), torch.ones(1, 5), torch.tensor([[True, False]]))
    torch.testing.assert_close(probabilities, logits.softmax(dim=1))


def test_torch__what_an_absent_row_holds_does_not_matter(tmp_path: Path) -> None:
    made, signature = model(tmp_path, "plain", "global")
    run = exported_program(exported(tmp_path, made, signature, "torch").path)
    presence = torch.tensor([[True, False]])
    one, two = (run([torch.ones(1, 5), torch.full((1, 5), value), presence]) for value in (0.0, 1e6))
    assert torch.equal(one, two)


def test_onnx__has_names_metadata_and_an_open_batch(tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    made, signature = model(tmp_path, "plain", "global")
    written = exported(tmp_path, made, signature, "onnx", real={"m0": torch.ones(3, 5), "m1": torch.zeros(3, 5)})
    session = runtime.InferenceSession(written.path, providers=["CPUExecutionProvider"])
    assert [one.name for one in session.get_inputs()] == ["m0", "m1", "presence"]
    assert [one.name for one in session.get_outputs()] == ["logits", "probabilities"]
    assert session.get_inputs()[0].shape[1:] == [5]
    assert isinstance(session.get_inputs()[0].shape[0], str)
    assert json.loads(session.get_modelmeta().custom_metadata_map[METADATA])["batch"] == "dynamic"
    assert written.differences["real"].samples == 9


def test_export__a_fixed_batch_is_fixed(tmp_path: Path) -> None:
    made, signature = model(tmp_path, "plain", "global")
    run = exported_program(exported(tmp_path, made, signature, "torch", batch=4).path)
    assert run([torch.ones(4, 5), torch.ones(4, 5), torch.ones(4, 2, dtype=torch.bool)]).shape == (4, 3)
    with pytest.raises(AssertionError, match="size"):
        run([torch.ones(2, 5), torch.ones(2, 5), torch.ones(2, 2, dtype=torch.bool)])


def test_export__leaves_the_model_as_it_is(tmp_path: Path) -> None:
    made, signature = model(tmp_path, "plain", "global")
    trunk: Any = made.trunk
    exported(tmp_path, made, signature, "torch")
    assert trunk.skip_absent
    assert all(parameter.requires_grad for parameter in made.parameters())


def test_export__refuses_codes_that_are_searched_for(tmp_path: Path) -> None:
    made, signature = model(tmp_path, "cpm_nets", "global")
    with pytest.raises(RobustmmError, match="finds the code of each sample by gradient descent"):
        exported(tmp_path, made, signature, "torch")


def test_export__says_what_torch_cannot_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, signature = model(tmp_path, "plain", "global")
    forward = type(made).forward

    def depends(self: Method, inputs: Any, presence: Tensor, *rest: Any, **options: Any) -> Any:
        return forward(self, inputs, presence | bool(presence.all()), *rest, **options)

    monkeypatch.setattr(type(made), "forward", depends)
    with pytest.raises(RunFailed, match=r"torch.export cannot make a graph of this model: \w+"):
        exported(tmp_path, made, signature, "torch")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("wrong", [0.1, float("nan")])
def test_check__fails_where_logits_differ(tmp_path: Path, wrong: float) -> None:
    made, signature = model(tmp_path, "plain", "global")
    compare = Compare(made, (), signature)

    def program(tensors: Any) -> Tensor:
        logits = compare.logits(tensors)
        only = tensors[-1][:, 0] & ~tensors[-1][:, 1]  # under one combination alone
        return logits + torch.where(only, wrong, 0.0)[:, None]

    with pytest.raises(RunFailed, match="on random samples logits differ by"):
        check_program(program, compare, batch=None, real=None)


def test_export__a_file_that_differs_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, signature = model(tmp_path, "plain", "global")
    monkeypatch.setattr(Deployed, "forward", lambda self, *tensors: (tensors[0][:, :3], tensors[0][:, :3]))
    with pytest.raises(RunFailed, match="does not predict what the model predicts"):
        exported(tmp_path, made, signature, "torch")
    assert not list((tmp_path / "out").iterdir())


def test_export__names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    made, signature = model(tmp_path, "plain", "global")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(RobustmmError, match=r"needs onnxruntime: pip install 'robustmm\[onnx\]'"):
        exported(tmp_path, made, signature, "onnx")
