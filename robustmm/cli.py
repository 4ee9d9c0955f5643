"""The ``robustmm`` program: global options, and commands that are imported when they are called."""

from __future__ import annotations

import importlib
import sys
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import click

from robustmm import __version__
from robustmm.errors import PluginError, RobustmmError, did_you_mean


class Row(NamedTuple):
    """Where a command lives, and its line in ``robustmm --help``."""

    target: str
    help: str


#: A new command is a module in `robustmm.commands` with a click command named ``command``, and one row here, in the
#: order of the help. The help text stands here too, so that ``robustmm --help`` imports none of the modules.
COMMANDS = {
    "train": Row(
        "robustmm.commands.train:command", "Train a model and evaluate it on every combination of modalities."
    ),
    "evaluate": Row(
        "robustmm.commands.evaluate:command",
        "Measure a trained run: combinations, missing rates, corruptions, calibration, latency.",
    ),
    "predict": Row(
        "robustmm.commands.predict:command", "Predict files with a trained run, whatever modalities they have."
    ),
    "export": Row("robustmm.commands.export:command", "Write a trained run as one file: ONNX, or a torch program."),
    "serve": Row("robustmm.commands.serve:command", "Show predictions on a local page as modalities are taken away."),
    "report": Row("robustmm.commands.report:command", "Write a run's results as one page, report.html."),
    "sweep": Row("robustmm.commands.sweep:command", "Train every combination of configurations, values and seeds."),
    "compare": Row("robustmm.commands.compare:command", "Compare groups of runs over seeds, with paired tests."),
    "customise": Row(
        "robustmm.commands.customise:command", "Hold a run against models trained for one combination each."
    ),
    "data": Row("robustmm.commands.data:command", "List data sets, check one sample by sample, prepare one."),
    "explain": Row("robustmm.commands.explain:command", "Say which object acts at which place of the training step."),
    "config": Row("robustmm.commands.config:command", "Show, check and begin configuration files."),
    "list": Row("robustmm.commands.listing:command", "List the components of a kind, or the options of one."),
    "plugins": Row("robustmm.commands.plugins:command", "List plugins and what became of them, or check one."),
    "doctor": Row("robustmm.commands.doctor:command", "Check the installation and say how to repair it."),
}


@dataclass
class Settings:
    """Global options that outlive the parsing."""

    debug: bool = False


class LazyGroup(click.Group):
    """A group whose help comes from `COMMANDS`; other names are looked up among the plugins' commands."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command of the table, or take a plugin's."""
        if cmd_name not in COMMANDS:
            return _plugin_command(cmd_name)
        module, _, attribute = COMMANDS[cmd_name].target.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command), f"{COMMANDS[cmd_name].target} is not a click command"
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with the closest name in the error."""
        name = args[0]
        command = self.get_command(ctx, name)
        if command is None and not ctx.resilient_parsing:
            ctx.fail(f"unknown command '{name}'{did_you_mean(name, COMMANDS) or '.'} Known: {', '.join(COMMANDS)}")
        return name, command, args[1:]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table's help texts, without importing the commands."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, row.help) for name, row in COMMANDS.items()])


def _plugin_command(name: str) -> click.Command | None:
    from robustmm.plugin_manager import get_plugins  # pydantic, and torch through the plugins: not for --help

    plugins = get_plugins()
    for taken in COMMANDS.keys() & plugins.commands.keys():
        offering = plugins.offering(f"command:{taken}")
        origin = offering.origin if offering else "an unnamed plugin"
        raise PluginError(f"command '{taken}' is offered by robustmm and by {origin}; the plugin must rename it")
    return plugins.commands.get(name)


def _use_plugins_dirs(ctx: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> None:
    # While parsing: an unknown command is looked up among the plugins before the group's own function runs.
    if value:
        from robustmm.plugin_manager import set_plugins_dirs

        set_plugins_dirs(value)


def _use_debug(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    ctx.ensure_object(Settings).debug = value


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Plugins may add commands; 'robustmm plugins list' shows them.",
)
@click.option(
    "--plugins-dir",
    multiple=True,
    metavar="DIR",
    expose_value=False,
    callback=_use_plugins_dirs,
    help="Load each .py file in DIR as a plugin; repeatable. Also ROBUSTMM_PLUGINS_DIR.",
)
@click.option("--debug", is_flag=True, expose_value=False, callback=_use_debug, help="Show tracebacks of errors.")
@click.version_option(version=__version__, prog_name="robustmm")
def group() -> None:
    """Train multimodal models that keep working while modalities go missing."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code.

    0 ok, 1 run failed, 2 usage or configuration, 3 plugin, 130 interrupted. A user's mistake is printed without a
    traceback; a programming error is not caught.

    Args:
        arguments: Without the program's name; those of the process by default.
    """
    settings = Settings()
    warnings.formatwarning = _one_line
    try:
        code = group.main(
            None if arguments is None else list(arguments), prog_name="robustmm", standalone_mode=False, obj=settings
        )
    except RobustmmError as error:
        if settings.debug:
            traceback.print_exception(error)
        else:
            click.echo(str(error), err=True)
        return error.exit_code
    except OSError as error:
        if settings.debug or error.filename is None:
            raise
        click.echo(f"{error.filename}: {error.strerror or error}", err=True)
        return 2
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 130
    return code if isinstance(code, int) else 0


def _one_line(message: Warning | str, *_: object, **__: object) -> str:
    """A warning without the file and source line that raised it, which say nothing to a user."""
    return f"warning: {message}\n"


def main() -> None:
    """Entry point of the console script."""
    sys.exit(run())
