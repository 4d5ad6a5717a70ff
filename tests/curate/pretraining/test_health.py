import math

import pytest
import torch

from curate.pretraining.health import feature_spread, judge


def rows(losses, spread=0.5, chance=5.0):
    return [
        {"samples_seen": i, "loss": value, "chance_loss": chance, "feature_spread": spread}
        for i, value in enumerate(losses)
    ]


def test_spread_by_hand():
    assert feature_spread(torch.ones(7, 3)) == pytest.approx(0, abs=1e-3)
    assert feature_spread(torch.tensor([[1.0, 0], [-2, 0]])) == 1
    assert feature_spread(torch.eye(2)) == pytest.approx(math.sqrt(0.5))  # mean (1/2, 1/2)
    assert feature_spread(5 * torch.eye(4)) == pytest.approx(math.sqrt(3 / 4))


@pytest.mark.parametrize(
    ("curve", "verdict"),
    [
        (rows([5.0] * 10 + [3.0] * 10), "healthy"),
        (rows([5.0] * 20), "not learning"),
        (rows([6.0] * 20), "not learning"),  # above chance, as fresh networks can be, and staying there
        (rows([8.0] * 10 + [6.0] * 10), "too early"),  # above chance, but it fell
        (rows([8.0] * 10 + [5.0] * 10), "not learning"),  # fell to chance and stuck
        (rows([4.95] * 20), "not learning"),
        (rows([3.0] * 20 + [5.0] * 4), "not learning"),  # it is the end that counts
        (rows([5.0] * 20, spread=0.001), "collapsed"),
        (rows([3.0, math.nan]), "diverged"),
        (rows([3.0, math.inf]), "diverged"),
    ],
)
def test_verdicts(curve, verdict):
    assert judge(curve).verdict == verdict


def test_details_carry_the_figures():
    assert "from 4.000 to 3.000" in judge(rows([4.0, 3.0])).detail
    assert "chance value is 5.000" in judge(rows([5.0])).detail
    assert "after 1 samples" in judge(rows([3.0, math.nan])).detail
