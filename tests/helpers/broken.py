"""Components that break one promise each, and the proof that a contract check finds it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import pytest

from robustmm import Component, Options
from robustmm.testing import NotApplicable, checks_for


class Broken(NamedTuple):
    """A component that must fail one check.

    Args:
        kind: Its kind.
        check: Name of the check.
        component: See `component`.
        text: Pattern of what the check must say.
    """

    kind: str
    check: str
    component: Component
    text: str


def component(build: Callable[..., Any], options: type[Options] = Options, **fields: Any) -> Component:
    """A component with everything in order but what ``build`` and ``fields`` say."""
    given = {"name": "broken", "summary": "Breaks a promise.", "source": "own", **fields}
    return Component(build=build, options=options, **given)


def named_check(kind: str, name: str) -> Callable[[Component], None]:
    """The check of a kind with this name."""
    return next(check for check in checks_for(kind) if check.__name__ == name)


def parametrised(cases: Iterable[Broken]) -> pytest.MarkDecorator:
    """One test per broken component."""
    return pytest.mark.parametrize("case", [pytest.param(case, id=f"{case.kind}-{case.check}") for case in cases])


def assert_caught(case: Broken) -> None:
    """Fail unless the check finds what is broken and says so."""
    with pytest.raises(Exception, match=case.text) as caught:
        named_check(case.kind, case.check)(case.component)
    assert not isinstance(caught.value, NotApplicable)


def assert_complete(cases: Iterable[Broken], kinds: Iterable[str], *, general: Iterable[str] = ()) -> None:
    """Fail unless every check of ``kinds`` is proven by a broken component, but those in ``general``."""
    proven = {(case.kind, case.check) for case in cases}
    wanted = {(kind, check.__name__) for kind in kinds for check in checks_for(kind)}
    missing = {pair for pair in wanted - proven if pair[1] not in general}
    assert not missing, f"no broken component proves {sorted(missing)}"


#: Checks that every kind shares; proven once.
GENERAL = ("describes_itself", "options_have_descriptions", "options_refuse_unknown_keys", "options_survive_json")
