"""``robustmm predict``: what a trained run says of files, whatever of its modalities they hold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from robustmm.predictor import Predictor
    from robustmm.use.prediction import Prediction
    from robustmm.use.sources import Named

#: So many predictions are printed; the others are in the files.
PRINTED = 20


@click.command("predict")
@click.argument("folder", metavar="RUN", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="NAME=FILE",
    help="A modality of one sample: a file, or of a vector its numbers; repeat for further modalities.",
)
@click.option(
    "--folder",
    "folders",
    multiple=True,
    metavar="NAME=DIR",
    help="Files of a modality; those with one stem are a sample, and what has no such file is absent. Repeatable.",
)
@click.option(
    "--manifest",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="CSV file with a column per modality, of paths relative to it or numbers; an empty cell is absent.",
)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    help="Write predictions.csv and .jsonl into this folder; of dense prediction also maps and overlays.",
)
@click.option("--overwrite", is_flag=True, help="Replace earlier predictions in the folder.")
@click.option("--top", type=click.IntRange(1), default=1, show_default=True, help="Classes to name of each sample.")
@click.option("--adapter", metavar="NAME", help="Adapt to the samples at test time, in their order.")
@click.option(
    "--adapter-option", "adapter_options", multiple=True, metavar="KEY=VALUE", help="Option of the adapter; repeatable."
)
@click.option("--batch-size", type=click.IntRange(1), help="Samples at once; as it stands as in the run's evaluation.")
@click.option(
    "--accelerator",
    type=click.Choice(["auto", "cpu", "gpu", "cuda", "mps"]),
    default="auto",
    show_default=True,
    help="Kind of device.",
)
def command(
    folder: Path,
    inputs: tuple[str, ...],
    folders: tuple[str, ...],
    manifest: Path | None,
    out: Path | None,
    overwrite: bool,
    top: int,
    adapter: str | None,
    adapter_options: tuple[str, ...],
    batch_size: int | None,
    accelerator: str,
) -> None:
    """Predict samples with the selected weights of RUN, from whatever of its modalities they have.

    Samples are given by --input, --folder or --manifest. The data set that RUN was trained on is not needed.
    """
    if [bool(inputs), bool(folders), manifest is not None].count(True) != 1:
        raise click.UsageError("give samples in one way: --input NAME=FILE, --folder NAME=DIR or --manifest FILE")
    if adapter is None and adapter_options:
        raise click.UsageError("--adapter-option needs --adapter NAME; 'robustmm list adapter' shows the names")
    from robustmm.predictor import load

    options = dict(text.partition("=")[::2] for text in adapter_options)
    predictor = load(folder, device=accelerator, batch_size=batch_size, adapter=adapter, adapter_options=options)
    samples = _samples(predictor, inputs, folders, manifest)
    shown, count = _predict(predictor, samples, out, top=top, overwrite=overwrite)
    _print(shown, count, top)
    if out is not None:
        click.echo(f"written to {out}")


def _samples(
    predictor: Predictor, inputs: Sequence[str], folders: Sequence[str], manifest: Path | None
) -> Sequence[Named]:
    from robustmm.use import sources

    if inputs:
        return sources.one_sample(sources.pairs(inputs, "--input", predictor.modalities))
    if folders:
        return sources.from_folders(sources.pairs(folders, "--folder", predictor.modalities), predictor.modalities)
    assert manifest is not None  # one of the three is given
    return sources.from_table(manifest, predictor.modalities, note=lambda text: click.echo(text, err=True))


def _predict(
    predictor: Predictor, samples: Sequence[Named], out: Path | None, *, top: int, overwrite: bool
) -> tuple[list[Prediction], int]:
    """Predict everything, write it as it comes; returns what is to be printed, and how many there are."""
    from contextlib import nullcontext

    from robustmm.commands.progress import track
    from robustmm.use.writing import PredictionWriter

    shown: list[Prediction] = []
    count = 0
    writing: Any = nullcontext()
    if out is not None:
        writing = PredictionWriter(out, predictor.signature, top=top, overwrite=overwrite)
    with writing as writer:
        predictions = predictor.stream(track("predict", samples))
        for prediction, (_, given) in zip(predictions, samples, strict=True):
            if writer is not None:
                writer.write(prediction, given)
            if count < PRINTED:
                shown.append(prediction)
            count += 1
    return shown, count


def _print(shown: Sequence[Prediction], count: int, top: int) -> None:
    from robustmm.commands.printing import print_table
    from robustmm.use.writing import row_of

    rows = [{key: _text(value) for key, value in row_of(one, top).items()} for one in shown]
    print_table([key.replace("_", " ") for key in rows[0]], [list(row.values()) for row in rows])
    if count > len(shown):
        click.echo(f"... and {count - len(shown)} more")


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)
