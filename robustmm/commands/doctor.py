"""``robustmm doctor``: check what a run needs, and say how to repair what is broken."""

from __future__ import annotations

import json
import os
import platform
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

import click
from packaging.requirements import Requirement

from robustmm import __version__
from robustmm.commands.printing import print_table
from robustmm.errors import RobustmmError
from robustmm.imports import import_torchvision


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Args:
        subject: What was looked at.
        ok: Whether it works.
        text: What was found, and the repair where something is broken.
    """

    subject: str
    ok: bool
    text: str


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Check the installation and say how to repair it. Ends with exit code 1 if something is broken."""
    findings = list(examine())
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        print_table(
            ("subject", "state", "finding"), [(f.subject, "ok" if f.ok else "BROKEN", f.text) for f in findings]
        )
    if not all(finding.ok for finding in findings):
        ctx.exit(1)


def examine() -> Iterator[Finding]:
    """All findings, in the order in which they are read."""
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (
        _python,
        _requirements,
        _torch,
        _torchvision,
        _plugins,
        _folder,
        _data,
    )
    for check in checks:
        try:
            yield from check()
        except Exception as error:  # a broken library may raise anything; the remaining checks still tell something
            text = " ".join(str(error).split())
            yield Finding(check.__name__.strip("_"), False, f"{type(error).__name__}: {text}")


def _python() -> Iterator[Finding]:
    yield Finding("robustmm", True, __version__)
    yield Finding("python", True, f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    yield Finding("cpu", True, f"{os.cpu_count()} logical processors, {len_affinity()} usable")


def len_affinity() -> int:
    """Processors that this process may use; fewer than the machine has inside a container or a batch job."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _requirements() -> Iterator[Finding]:
    needed = [Requirement(line) for line in metadata.requires("robustmm") or ()]
    needed = [one for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
    wrong = [problem for problem in map(unmet, needed) if problem]
    if wrong:
        repair = "; install robustmm again in this environment"
        yield Finding("requirements", False, "; ".join(wrong) + repair)
    else:
        yield Finding("requirements", True, f"{len(needed)} packages, each at a version that fits")
    yield Finding("lightning", *_version_of("lightning"))


def unmet(requirement: Requirement) -> str:
    """What is wrong with an installed package; empty if it meets the requirement."""
    try:
        found = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return f"{requirement.name} is not installed"
    fits = requirement.specifier.contains(found, prereleases=True)
    return "" if fits else f"{requirement.name} {found} does not meet {requirement.specifier}"


def _version_of(distribution: str) -> tuple[bool, str]:
    try:
        return True, metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False, "not installed"


def _torch() -> Iterator[Finding]:
    import torch  # here, so that a torch that cannot be imported is a finding

    build = torch.version.cuda or "none"
    yield Finding("torch", True, f"{torch.__version__} (CUDA of the build: {build}), {torch.get_num_threads()} threads")
    if not torch.cuda.is_available():
        yield Finding("cuda", True, "no device; runs use the CPU")
    for number in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(number)
        yield Finding(f"cuda:{number}", True, f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB")


def _torchvision() -> Iterator[Finding]:
    try:
        import_torchvision("torchvision.models")
    except RobustmmError as error:
        yield Finding("torchvision", False, str(error))
    else:
        yield Finding("torchvision", *_version_of("torchvision"))


def _plugins() -> Iterator[Finding]:
    from robustmm.plugin_manager import get_plugins  # here, so that a plugin clash is a finding

    records = get_plugins().records
    bad = [record for record in records if record.bad]
    counts = {status: sum(record.status == status for record in records) for status in ("loaded", "blocked")}
    yield Finding("plugins", True, f"{counts['loaded']} loaded, {counts['blocked']} blocked, {len(bad)} not usable")
    for record in bad:
        yield Finding(f"plugin {record.name}", False, record.verdict)


def _folder() -> Iterator[Finding]:
    here = Path.cwd()
    try:
        with tempfile.TemporaryFile(dir=here):
            pass
    except OSError as error:
        text = f"{here} cannot be written ({error.strerror}); runs go to 'runs' below the current folder"
        yield Finding("folder", False, text)
    else:
        yield Finding("folder", True, f"{here} can be written")


def _data() -> Iterator[Finding]:
    given = os.environ.get("ROBUSTMM_DATA")
    if not given:
        yield Finding("data", True, "ROBUSTMM_DATA is not set; the embedded data sets need no folder")
    elif not Path(given).is_dir():
        yield Finding("data", False, f"ROBUSTMM_DATA={given} is not a folder; set it to the one that holds the data")
    else:
        yield Finding("data", True, f"ROBUSTMM_DATA={given}")
