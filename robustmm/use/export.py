"""A trained run as one file for other programs: torch's exported program, or ONNX; checked before it is kept."""

from __future__ import annotations

import contextlib
import copy
import importlib
import io
import json
import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from robustmm import __version__
from robustmm.errors import RobustmmError, RunFailed
from robustmm.methods.method import Method
from robustmm.signature import Signature, to_json
from robustmm.types import Modality
from robustmm.use.export_check import Compare, Difference, Program, check_program

Format = Literal["onnx", "torch"]
SUFFIX: Mapping[Format, str] = {"onnx": ".onnx", "torch": ".pt2"}
PRESENCE = "presence"
#: Key of the metadata in an ONNX file, and name of the file that holds it in an exported program.
METADATA = "robustmm.json"
#: Samples that the graph is traced with: more than one, so that a batch is not taken for a constant.
TRACED = 3
#: ONNX keeps at most 2 GB in one file; weights beyond lie in a second one.
ONE_FILE = 1_900_000_000
NOISY = ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")


class Deployed(nn.Module):
    """A trained method as a function of tensors alone: the modalities in column order, then presence.

    Every encoder runs on every row, so that what is computed does not depend on presence.

    Args:
        method: For prediction; it stays as it is.
        size: (H, W) of dense predictions; () of global ones.
    """

    def __init__(self, method: Method, size: tuple[int, ...]) -> None:
        super().__init__()
        self.method = copy.deepcopy(method).eval().requires_grad_(False)
        for part in self.method.modules():
            if hasattr(part, "skip_absent"):
                part.skip_absent = False  # type: ignore[assignment]  # a plain attribute, no part of the network
        self.size = size

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what it gives."""
        return ("logits", "values" if self.method.task.continuous else "probabilities")

    def forward(self, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        """Predict.

        Args:
            tensors: One per modality, (B, ...) in raw units, and presence (B, M) bool, of which each row shows
                something. Rows of an absent modality may hold anything finite.

        Returns:
            Logits, and probabilities or, of regression, values in the targets' unit.
        """
        *inputs, presence = tensors
        named = dict(zip(self.method.modalities, inputs, strict=True))
        logits: Tensor = self.method(named, presence, size=self.size).logits.float()
        task: Any = self.method.task
        return logits, task.predict(logits) if task.continuous else logits.softmax(dim=1)


@dataclass(frozen=True)
class Exported:
    """What was written.

    Args:
        path: Of the file.
        inputs: Names in order.
        outputs: Likewise.
        differences: Of the file's logits from the model's, by what they were made of.
    """

    path: Path
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    differences: Mapping[str, Difference]


def export_model(
    method: Method,
    signature: Signature,
    path: Path,
    form: Format,
    *,
    batch: int | None = None,
    opset: int | None = None,
    real: Mapping[str, Tensor] | None = None,
) -> Exported:
    """Write a model as a file, and keep it if it predicts what the model predicts, on every combination.

    Args:
        method: For prediction, on the CPU.
        signature: What it takes and gives.
        path: Of the file.
        form: ``onnx`` or ``torch``.
        batch: Samples of every call; None leaves that open.
        opset: Version of ONNX's operators; None as torch has it.
        real: Modality -> (B, ...) real samples to check with, beside random ones.

    Raises:
        RobustmmError: the method cannot be exported, or a library for it is not installed.
        RunFailed: the export failed, or its logits are others than the model's; the file is removed.
    """
    refuse_what_cannot(method)
    runtime = import_onnx() if form == "onnx" else None
    deployed = Deployed(method, _output_size(method, signature))
    names = (*(one.name for one in signature.modalities), PRESENCE)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.tmp{path.suffix}")
    try:
        with quiet():
            traced = trace(deployed, signature, batch)
            facts = metadata(signature, deployed, names, batch)
            if runtime is None:
                torch.export.save(traced, temporary, extra_files={METADATA: facts})
                program: Program = exported_program(temporary)
            else:
                write_onnx(traced, temporary, names, deployed.outputs, facts, opset)
                program = onnx_program(runtime, temporary, names)
        compare = Compare(method, deployed.size, signature)
        differences = check_program(program, compare, batch=batch, real=real)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return Exported(path, names, deployed.outputs, differences)


def refuse_suffix(path: Path, form: Format) -> None:
    """Raise RobustmmError for a file whose name does not say its format: programs go by the name."""
    if path.suffix.lower() == SUFFIX[form]:
        return
    owner = next((other for other, suffix in SUFFIX.items() if suffix == path.suffix.lower()), None)
    repair = f"name it {path.with_suffix(SUFFIX[form])}" + (f", or use --format {owner}" if owner else "")
    raise RobustmmError(f"{path}: --format {form} writes files that end in {SUFFIX[form]}; {repair}")


def refuse_what_cannot(method: Method) -> None:
    """Raise RobustmmError for a method whose prediction is no graph."""
    if method.trunk.not_exportable:
        raise RobustmmError(f"this run cannot be exported: {method.trunk.not_exportable}")
    if PRESENCE in method.modalities:
        raise RobustmmError(f"a modality is called '{PRESENCE}', as the mask of an exported model is")


def map_size(signature: Signature, modality: Modality) -> tuple[int, ...]:
    """Shape of one sample of a modality in the file."""
    if len(modality.shape) != 3:
        return modality.shape
    return (modality.shape[0], *signature.size_of(modality))


def _output_size(method: Method, signature: Signature) -> tuple[int, ...]:
    return signature.size_of(signature.modalities[0]) if method.task.dense else ()


def trace(deployed: Deployed, signature: Signature, batch: int | None) -> torch.export.ExportedProgram:
    """The graph of a model.

    Raises:
        RunFailed: torch cannot make one, with its reason.
    """
    rows = batch or TRACED
    example = [torch.zeros(rows, *map_size(signature, one)) for one in signature.modalities]
    example.append(torch.ones(rows, len(signature.modalities), dtype=torch.bool))
    # A dimension without bounds would be taken for at least 2.
    open_ = {0: torch.export.Dim("batch", min=1, max=1 << 20)}
    shapes = None if batch else {"tensors": tuple(open_ for _ in example)}
    try:
        with torch.no_grad():
            return torch.export.export(deployed, tuple(example), dynamic_shapes=shapes, strict=False)
    except Exception as error:  # torch raises errors of many kinds here
        raise RunFailed(f"torch.export cannot make a graph of this model: {_first_line(error)}") from error


def metadata(signature: Signature, deployed: Deployed, names: Sequence[str], batch: int | None) -> str:
    """What another program must know, as JSON."""
    shapes = {one.name: list(map_size(signature, one)) for one in signature.modalities}
    facts = {
        "robustmm": __version__,
        "inputs": {name: ["batch", *shapes.get(name, [len(shapes)])] for name in names},
        "outputs": list(deployed.outputs),
        "batch": batch or "dynamic",
        "output_size": list(deployed.size),
        "missing": "rows of presence say which modalities a sample has; each has one at least",
        "signature": to_json(signature),
    }
    return json.dumps(facts)


def exported_program(path: Path) -> Program:
    """The saved program, read again."""
    module = torch.export.load(path).module()

    def run(tensors: Sequence[Tensor]) -> Tensor:
        with torch.no_grad():
            logits: Tensor = module(*tensors)[0]
        return logits

    return run


def import_onnx() -> ModuleType:
    """onnxruntime, with what the exporter needs.

    Raises:
        RobustmmError: something is not installed.
    """
    try:
        importlib.import_module("onnx")
        importlib.import_module("onnxscript")
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        raise RobustmmError(f"export to ONNX needs {error.name}: pip install 'robustmm[onnx]'") from error


def write_onnx(
    traced: torch.export.ExportedProgram,
    path: Path,
    names: Sequence[str],
    outputs: Sequence[str],
    facts: str,
    opset: int | None,
) -> None:
    """Translate a graph to ONNX and write it.

    Raises:
        RunFailed: an operator has no translation, or the opset is not known.
    """
    try:
        program = torch.onnx.export(
            traced,
            dynamo=True,
            input_names=list(names),
            output_names=list(outputs),
            opset_version=opset,
            verbose=False,
        )
        assert program is not None  # with dynamo there always is one
        program.model.metadata_props[METADATA] = facts
        program.save(path, external_data=_bytes(traced) > ONE_FILE)
    except Exception as error:  # the exporter raises errors of many kinds
        raise RunFailed(f"torch.onnx cannot translate this model: {_first_line(error)}") from error


def _bytes(traced: torch.export.ExportedProgram) -> int:
    return sum(value.numel() * value.element_size() for value in traced.state_dict.values())


def onnx_program(runtime: ModuleType, path: Path, names: Sequence[str]) -> Program:
    """The written file, run by onnxruntime on the CPU."""
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    taken = {one.name for one in session.get_inputs()}

    def run(tensors: Sequence[Tensor]) -> Tensor:
        feed = {name: value.numpy() for name, value in zip(names, tensors, strict=True) if name in taken}
        return torch.from_numpy(session.run(["logits"], feed)[0])

    return run


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the exporters' progress and their advice to developers of torch."""
    levels = {name: logging.getLogger(name).level for name in NOISY}
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
