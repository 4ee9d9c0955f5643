"""Short texts as vectors of a fixed size: TF-IDF over the words of the training part."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

_WORD = re.compile(r"[^\W_]+")


def words_of(text: str) -> list[str]:
    """Lower-case words; letters and digits of any script count, everything else parts words."""
    return _WORD.findall(text.lower())


class TfIdf:
    """Counts of words, weighted by how rare each word is in the texts it was fitted to, as rows of length 1.

    The weight is ``ln((1 + n) / (1 + d)) + 1`` with n texts of which d have the word. The vocabulary is the words in
    most texts; ties go by alphabet.

    Args:
        texts: Training texts; no other text has influence.
        vocabulary_size: At most this many words.
    """

    def __init__(self, texts: Sequence[str], vocabulary_size: int) -> None:
        frequency = Counter(word for text in texts for word in set(words_of(text)))
        ranked = sorted(frequency, key=lambda word: (-frequency[word], word))[:vocabulary_size]
        self.column = {word: number for number, word in enumerate(ranked)}
        self.weight = torch.tensor([math.log((1 + len(texts)) / (1 + frequency[word])) + 1 for word in ranked])

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """(N, words) float32; a text without a known word is a row of zeros."""
        counts = torch.zeros(len(texts), len(self.column))
        for row, text in enumerate(texts):
            for word in words_of(text):
                if word in self.column:
                    counts[row, self.column[word]] += 1
        return torch.nn.functional.normalize(counts * self.weight, dim=1)
