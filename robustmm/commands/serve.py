"""``robustmm serve``: a local page on which modalities are taken away from a sample."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("serve")
@click.argument("folder", metavar="RUN", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--port", type=click.IntRange(0, 65535), default=7860, show_default=True, help="0 takes a free one.")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to answer at. Another than this machine's own lets others upload files to it, without a password.",
)
@click.option(
    "--accelerator",
    type=click.Choice(["auto", "cpu", "gpu", "cuda", "mps"]),
    default="auto",
    show_default=True,
    help="Kind of device.",
)
def command(folder: Path, port: int, host: str, accelerator: str) -> None:
    """Show what RUN predicts of a sample as modalities are taken away, on a page of this machine.

    Samples are those of the test part, where its data are there, or files that you choose.
    """
    from robustmm.engine.run_folder import RunFolder
    from robustmm.plugin_manager import get_plugins
    from robustmm.predictor import load
    from robustmm.use.held_out import held_out
    from robustmm.use.serve import LOCAL, import_flask, make_app, serve

    import_flask()
    registry = get_plugins().registry
    predictor = load(folder, device=accelerator, registry=registry)
    test = held_out(RunFolder(folder), registry)
    app = make_app(predictor, test, hosts=LOCAL if host in LOCAL else ())
    serve(app, host, port, ready=lambda address: click.echo(f"{folder} at {address} - Ctrl-C stops"))
