"""Contract tests for every kind of component, for built-ins and third parties alike.

A plugin's whole test file may be one line besides the import::

    import robustmm.testing

    test_contracts = robustmm.testing.contract_tests("my_plugin_module")

Each component the module offers is then held to every promise of its kind, one test case per promise: a method is
trained on one to four modalities with every combination, a balancer must change nothing where there is one modality,
a data set must give the same samples twice. All inputs are made on the spot and take milliseconds. Options without a
default need an example, see `robustmm.Options.contract_example`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

from robustmm.errors import RobustmmError
from robustmm.plugin_manager import get_plugins
from robustmm.plugin_offer import collect
from robustmm.registry import KINDS, Component, find_kind
from robustmm.testing.contract import Check, ContractError, NotApplicable, registered_checks

__all__ = ["Check", "ContractError", "NotApplicable", "check_component", "checks_for", "contract_tests", "offered"]

#: Modules with checks; importing one registers them. A kind's checks run in this order.
_MODULES = (
    "general",
    "tasks",
    "datasets",
    "encoders",
    "trunks",
    "fusions",
    "heads",
    "missing_policies",
    "samplers",
    "methods",
    "balancers",
    "optimisation",
    "adapters",
    "corruptions",
    "callbacks",
)
for _module in _MODULES:
    importlib.import_module(f"robustmm.testing.{_module}")

#: A component with its kind.
Offered = tuple[str, Component]


def checks_for(kind: str) -> list[Check]:
    """The checks of a kind, each called with a `Component`; it raises where the promise in its docstring is broken.

    A check that cannot be made on a component raises `NotApplicable`.

    Raises:
        ConfigError: no such kind.
    """
    return registered_checks(find_kind(kind))


def check_component(kind: str, component: Component) -> None:
    """Run every check of a kind on one component.

    Raises:
        AssertionError: some fail; names the component and, for each, the check, the setting and what is wrong.
    """
    failures = []
    for check in checks_for(kind):
        try:
            check(component)
        except NotApplicable:
            continue
        except Exception as error:  # a broken component may raise anything; the other checks must still run
            failures.append(f"  {check.__name__}: {_describe(error)}")
    if failures:
        raise AssertionError("\n".join([f"{kind} '{component.name}' breaks its contract:", *failures]))


def _describe(error: Exception) -> str:
    name = "" if isinstance(error, ContractError) else f"{type(error).__name__}: "
    return f"{name}{error}" + "".join(f" ({note})" for note in getattr(error, "__notes__", ()))


def offered(plugin: str | ModuleType | Sequence[Offered] | None = None) -> list[Offered]:
    """The components of a plugin with their kinds.

    Args:
        plugin: Dotted name of a module with hooks, the module, or components themselves; None means every plugin that
            is loaded, built-ins included.

    Raises:
        RobustmmError: the plugin offers nothing.
    """
    if plugin is None:
        registry = get_plugins().registry
        return [(kind, component) for kind in KINDS for component in registry.all(kind)]
    if not isinstance(plugin, str | ModuleType):
        return list(plugin)
    module = importlib.import_module(plugin) if isinstance(plugin, str) else plugin
    components = collect(module, module.__name__).components
    if not components:
        raise RobustmmError(f"{module.__name__} offers no component; mark its robustmm_register_... with @hookimpl")
    return components


def contract_tests(plugin: str | ModuleType | Sequence[Offered] | None = None) -> Callable[..., None]:
    """A pytest function with one case for each component and each check of its kind.

    Args:
        plugin: See `offered`.

    Raises:
        RobustmmError: pytest is not installed.
    """
    pytest = _import_pytest()
    cases = [pytest.param(component, check, id=name) for name, component, check in _cases(offered(plugin))]

    def test_contract(component: Component, check: Check) -> None:
        try:
            check(component)
        except NotApplicable as reason:
            pytest.skip(str(reason))

    parametrised: Callable[..., None] = pytest.mark.parametrize(("component", "check"), cases)(test_contract)
    return parametrised


def _cases(components: Sequence[Offered]) -> Iterator[tuple[str, Component, Check]]:
    for kind, component in components:
        for check in checks_for(kind):
            yield f"{kind}:{component.name}-{check.__name__}", component, check


def _import_pytest() -> Any:
    try:
        import pytest
    except ModuleNotFoundError as error:
        raise RobustmmError("contract_tests needs pytest: pip install pytest, or 'robustmm[dev]'") from error
    return pytest
