"""What a sweep's options say: several values with commas, seeds, keys that follow the seed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from robustmm.errors import ConfigError

_CLOSING = {"[": "]", "{": "}"}


def split_values(text: str) -> list[str]:
    """``a,[1,2],"x,y"`` as three values: a comma within brackets, braces or quotes parts nothing.

    Raises:
        ConfigError: a value is empty beside others, or a bracket or quote is left open.
    """
    parts, current, awaited = [], "", list[str]()
    for letter in text:
        if letter == "," and not awaited:
            parts.append(current.strip())
            current = ""
            continue
        if awaited and letter == awaited[-1]:
            awaited.pop()
        elif not (awaited and awaited[-1] in "\"'"):  # within quotes brackets are letters
            if letter in _CLOSING:
                awaited.append(_CLOSING[letter])
            elif letter in "\"'" and (awaited or not current.strip()):  # elsewhere it is an apostrophe
                awaited.append(letter)
        current += letter
    parts.append(current.strip())
    if awaited:
        raise ConfigError([f"'{text}': '{awaited[-1]}' is missing at the end"])
    if len(parts) > 1 and "" in parts:
        raise ConfigError([f"'{text}': a value between two commas is empty"])
    return parts


def parse_seeds(text: str) -> tuple[int, ...]:
    """``5`` as seeds 0 to 4, ``3,7`` as these two, ``3,`` as this one.

    Raises:
        ConfigError: it is neither, or a seed stands twice.
    """
    parts = [part.strip() for part in text.split(",")]
    listed = parts[:-1] if len(parts) > 1 and not parts[-1] else parts
    if not all(part.isascii() and part.isdigit() for part in listed):
        raise ConfigError(
            [f"--seeds {text}: expected a number of seeds, such as 5, or seeds with commas, such as 0,1,2"]
        )
    seeds = tuple(int(part) for part in listed)
    if len(parts) == 1:
        seeds = tuple(range(seeds[0]))
    if not seeds or len(set(seeds)) != len(seeds):
        raise ConfigError([f"--seeds {text}: {'a seed stands twice' if seeds else 'give at least one seed'}"])
    return seeds


@dataclass(frozen=True)
class Varied:
    """A key that follows the seed.

    Args:
        key: Dotted.
        offset: Added to the seed.
        values: One per seed, in the order of the seeds; empty where the key gets the seed itself.
    """

    key: str
    offset: int = 0
    values: tuple[str, ...] = ()

    def override(self, seed: int, place: int) -> str:
        """``key=value`` for a seed and its place among the seeds."""
        return f"{self.key}={self.values[place] if self.values else seed + self.offset}"


def parse_varied(text: str, seeds: Sequence[int]) -> Varied:
    """``KEY`` gets the seed, ``KEY+1`` the seed and one, ``KEY=a,b,c`` its values in turn.

    Raises:
        ConfigError: it is none of these, or has other than one value per seed.
    """
    key, listed, values = text.partition("=")
    if listed:
        found = tuple(split_values(values))
        if len(found) != len(seeds):
            raise ConfigError([f"--vary {text}: {len(found)} values for {len(seeds)} seeds; give one for each"])
        return Varied(_checked(key, text), values=found)
    match = re.fullmatch(r"([^+]+?)(?:\+(\d+))?", text)
    if match is None:
        raise _no_key(text)
    return Varied(_checked(match[1], text), offset=int(match[2] or 0))


def _checked(key: str, text: str) -> str:
    name = key.strip()
    if not re.fullmatch(r"[\w-]+(\.[\w-]+)*", name):
        raise _no_key(text)
    if name == "seed":
        raise ConfigError([f"--vary {text}: the seed itself comes from --seeds"])
    return name


def _no_key(text: str) -> ConfigError:
    return ConfigError(
        [f"--vary {text}: expected KEY, KEY+1 or KEY=a,b,c, such as data.dataset.split_seed, with one value per seed"]
    )


@dataclass(frozen=True)
class Axis:
    """A key with the values that it takes in turn.

    Args:
        key: Dotted.
        values: As YAML; a single one is part of every run.
    """

    key: str
    values: tuple[str, ...]


def parse_axes(overrides: Sequence[str]) -> list[Axis]:
    """``key=a,b`` as axes; a key that stands twice takes its last values.

    Raises:
        ConfigError: every text that is no ``key=value``.
    """
    axes: dict[str, Axis] = {}
    problems: list[str] = []
    for text in overrides:
        key, equals, values = text.partition("=")
        if not equals or not key.strip():
            problems.append(
                f"-o {text}: expected key=value, or several with commas, such as -o method.name=plain,dmrnet"
            )
        elif key.strip() == "seed":
            problems.append(f"-o {text}: the seed comes from --seeds")
        else:
            try:
                axes[key.strip()] = Axis(key.strip(), tuple(split_values(values)))
            except ConfigError as error:
                problems += [f"-o {text}: {problem}" for problem in error.problems]
    if problems:
        raise ConfigError(problems)
    return list(axes.values())
