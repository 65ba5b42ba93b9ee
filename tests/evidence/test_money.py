"""Money: one sentence of what was earned and what holding earned."""

import math

import pytest

from hftraining.evidence.money import money


@pytest.mark.parametrize(
    ("ours", "held", "sentence"),
    [
        (-0.463, 0.961, "It lost 46.3 %, where holding earned 96.1 %."),
        (0.0421, -0.2, "It earned 4.2 %, where holding lost 20.0 %."),
        (0.00049, -0.00049, "It broke even, where holding broke even."),
        (0.0005, 0.01, "It earned 0.1 %, where holding earned 1.0 %."),
        (12.5, 0.01, "It earned 1,250.0 %, where holding earned 1.0 %."),
        (-1.0, 0.01, "It lost 100.0 %, where holding earned 1.0 %."),
        (0.01, None, "It earned 1.0 %."),
        (0.01, math.nan, "It earned 1.0 %."),
        (None, 0.01, ""),
        (math.nan, 0.01, ""),
    ],
)
def test_the_sentence_says_what_was_earned_and_what_holding_earned(ours, held, sentence):
    assert money({"total_return": ours, "exposure": 0.4}, {"total_return": held}) == sentence


def test_a_book_without_exposure_took_no_position():
    nothing = {"total_return": 0.0, "exposure": 0.0}
    assert money(nothing, {"total_return": -0.1}) == "It took no position, where holding lost 10.0 %."
    assert money(nothing, {}) == "It took no position."
