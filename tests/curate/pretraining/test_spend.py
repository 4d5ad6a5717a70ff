"""C bought for GPU-hours or money."""

import pytest

from curate.pretraining import plan, pretrain, spend
from curate.pretraining.measure import Cost
from embeddings.errors import ForeignFolderError, UsageError


@pytest.fixture
def cost(monkeypatch):
    """What a sample costs, in seconds, can be set."""
    price = {"seconds": 36.0}
    monkeypatch.setattr(spend, "measure_cost", lambda trainer, batch: Cost(price["seconds"], 1.0))
    return price


@pytest.mark.parametrize(
    ("text", "samples", "hours"),
    [
        (5, 5, None),
        ("2_000", 2000, None),
        ("2,000", 2000, None),
        (" 1,234,567 ", 1_234_567, None),
        ("hours=1.5", None, 1.5),
        ("money=20,rate=2.5", None, 8),
    ],
)
def test_what_is_read(text, samples, hours):
    assert spend.read_samples(text) == (samples, hours)


ODD = ["1,5", "12,34", "1_", "²", "٣", "hours=2,foo", "hours=2,hours=3", "money=20,rate=2.5,"]


@pytest.mark.parametrize(
    "text", ["", "2h", "hours=", "hours=-1", "hours=inf", "money=20", "hours=1,rate=2", "-5", *ODD]
)
def test_what_is_not_an_amount(text):
    with pytest.raises(UsageError, match="not an amount"):
        spend.read_samples(text)


def test_hours_are_turned_into_samples_at_the_measured_rate(selection, cost):
    assert plan(selection, samples="hours=3", batch=4).samples_seen == 300
    assert plan(selection, samples="money=5,rate=2.5", batch=4).samples_seen == 200


def test_too_little_to_spend(selection, cost):
    with pytest.raises(UsageError, match="pays for 1 samples here"):
        plan(selection, samples="hours=0.01", batch=4)


def test_a_run_keeps_the_samples_it_was_begun_with(selection, cost, tmp_path):
    first = pretrain(selection, samples="hours=0.4", batch=4, out=tmp_path / "run", device="cpu")
    cost["seconds"] = 1.0
    again = pretrain(selection, samples="hours=0.4", batch=4, out=tmp_path / "run", device="cpu")
    assert again.facts == first.facts
    assert first.facts["samples_seen"] == 40
    assert first.facts["config"]["spend"] == "hours=0.4"
    with pytest.raises(ForeignFolderError):
        pretrain(selection, samples="hours=0.5", batch=4, out=tmp_path / "run", device="cpu")


def test_operations_of_a_step_are_counted(selection):
    """Of tiny-resnet at 32 pixels, two views and the backward pass: about six times those of one forward pass."""
    small = plan(selection, samples=64, batch=4)
    assert small.flops_per_sample == pytest.approx(plan(selection, samples=64, batch=2).flops_per_sample, rel=0.05)
    assert 0.1e9 < small.flops_per_sample < 1e9
