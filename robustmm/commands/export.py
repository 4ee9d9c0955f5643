"""``robustmm export``: a trained run as one file for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

if TYPE_CHECKING:
    from robustmm.use.export import Exported

#: Real samples that the file is checked with, where the run's test data are there.
REAL = 8


@click.command("export")
@click.argument("folder", metavar="RUN", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--format",
    "form",
    type=click.Choice(["onnx", "torch"]),
    required=True,
    help="onnx: an ONNX model; torch: an exported program (.pt2).",
)
@click.option(
    "-o",
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file, named .onnx or .pt2 as its format is; as it stands RUN/export/model.onnx or .pt2.",
)
@click.option("--overwrite", is_flag=True, help="Replace the file.")
@click.option("--opset", type=click.IntRange(18), help="Version of ONNX's operators; as it stands torch's choice.")
@click.option(
    "--batch", default="dynamic", show_default=True, metavar="N", help="Samples of every call, or 'dynamic' for any."
)
def command(
    folder: Path, form: Literal["onnx", "torch"], out: Path | None, overwrite: bool, opset: int | None, batch: str
) -> None:
    """Write the selected weights of RUN as a program with one input per modality, in raw units, and a presence mask.

    The file is kept only if it predicts what the model predicts, on every combination of modalities.
    """
    if opset is not None and form != "onnx":
        raise click.UsageError("--opset belongs to --format onnx")
    if batch != "dynamic" and not (batch.isdecimal() and int(batch) > 0):
        raise click.UsageError(f"--batch {batch}: expected a number above 0, or 'dynamic'")
    from robustmm.engine.run_folder import RunFolder
    from robustmm.errors import RobustmmError
    from robustmm.plugin_manager import get_plugins
    from robustmm.predictor import load
    from robustmm.use.export import SUFFIX, export_model, refuse_suffix, refuse_what_cannot
    from robustmm.use.held_out import held_out

    path = out or folder / "export" / f"model{SUFFIX[form]}"
    refuse_suffix(path, form)
    if path.exists() and not overwrite:
        raise RobustmmError(f"{path} is there already; add --overwrite to replace it, or name another with -o")
    registry = get_plugins().registry
    predictor = load(folder, device="cpu", registry=registry)
    refuse_what_cannot(predictor.method)
    found = held_out(RunFolder(folder), registry)
    exported = export_model(
        predictor.method,
        predictor.signature,
        path,
        form,
        batch=None if batch == "dynamic" else int(batch),
        opset=opset,
        real=found.batch(predictor.signature, REAL),
    )
    if found.reason:
        click.echo(f"checked with random samples alone, test data are not there: {found.reason}")
    _show(exported)


def _show(exported: Exported) -> None:
    for name, own in exported.differences.items():
        click.echo(
            f"{name} samples: {own.samples} predictions of {own.combinations} combinations, largest difference of "
            f"logits {own.largest:.2g} (largest logit {own.scale:.3g})"
        )
    click.echo(f"{', '.join(exported.inputs)} -> {', '.join(exported.outputs)}")
    click.echo(str(exported.path))
