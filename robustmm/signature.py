"""What a trained model takes and gives, in a file beside its weights, so that it is used without its data set."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from robustmm.errors import CheckpointError
from robustmm.types import Modality

FORMAT = 1
#: Name of the file, in the folder of the weights.
SIGNATURE = "model.json"


@dataclass(frozen=True)
class Signature:
    """Everything that a run's network depends on, beside its configuration.

    Args:
        modalities: Columns of the run.
        task: Registered name.
        classes: Class names, or of regression the names of the quantities.
        samples: Size of the training part.
        colours: Of the classes, for pictures; None where the data set names none.
        sizes: Modality -> (H, W) of test samples, where that is another size than the modality declares.
        facts: For people: names of what trained the model, and where its data came from.
    """

    modalities: tuple[Modality, ...]
    task: str
    classes: tuple[str, ...]
    samples: int
    colours: tuple[tuple[int, int, int], ...] | None = None
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    facts: Mapping[str, str | int | float] = field(default_factory=dict)

    def size_of(self, modality: Modality) -> tuple[int, int]:
        """(H, W) to which a map is brought before it is predicted."""
        return self.sizes.get(modality.name, (modality.shape[1], modality.shape[2]))


_ADAPTER = TypeAdapter(Signature)


def to_json(signature: Signature) -> dict[str, Any]:
    """JSON values, the format's number first."""
    return {"format": FORMAT, **asdict(signature)}


def write_signature(path: Path, signature: Signature) -> None:
    """Write the file; its folder is made where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(to_json(signature), indent=2) + "\n", encoding="utf-8")


def read_signature(path: Path, *, repair: str) -> Signature:
    """Read the file.

    Args:
        path: Of the file.
        repair: What to do where there is none.

    Raises:
        CheckpointError: it is absent, damaged, or of a format that this version does not know.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} is not there; {repair}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = content.pop("format")
        if found != FORMAT:
            raise CheckpointError(
                f"{path} has format {found}, this version of robustmm reads {FORMAT}; install the version that wrote it"
            )
        return _ADAPTER.validate_python(content)
    except (ValueError, KeyError, AttributeError, ValidationError) as error:
        first = str(error).splitlines()[0]
        raise CheckpointError(f"{path} is damaged ({first}); {repair}") from error
