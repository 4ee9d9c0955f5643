"""TF-IDF against hand-worked numbers."""

import math

import torch
from robustmm_plugins.datasets._text import TfIdf, words_of


def test_words_of__parts_at_everything_but_letters_and_digits():
    assert words_of("Keycap: 1, flag_é São-Tomé") == ["keycap", "1", "flag", "é", "são", "tomé"]


def test_tf_idf__matches_the_formula():
    vectorise = TfIdf(["cat dog", "cat"], vocabulary_size=5)
    assert vectorise.column == {"cat": 0, "dog": 1}
    rare = math.log(3 / 2) + 1  # in one of two texts; "cat" is in both: ln(3 / 3) + 1 = 1
    row = torch.tensor([2.0, rare])
    torch.testing.assert_close(vectorise(["dog cat cat bird"]), (row / row.norm()).unsqueeze(0))


def test_tf_idf__keeps_the_commonest_words_and_breaks_ties_by_alphabet():
    assert list(TfIdf(["b a", "c b", "a"], vocabulary_size=2).column) == ["a", "b"]


def test_tf_idf__unknown_words_give_zeros():
    assert TfIdf(["a"], vocabulary_size=3)(["z"]).tolist() == [[0.0]]
