import importlib

import pytest

PARTS = ("distances", "diversity", "evaluation", "exports", "pretraining", "reporting", "scoring")


@pytest.mark.parametrize("name", ["curate", "embeddings", *(f"curate.{part}" for part in PARTS)])
def test_every_public_name_is_there_and_no_other(name):
    package = importlib.import_module(name)
    assert dir(package) == sorted(package.__all__)
    assert all(getattr(package, member) is not None for member in package.__all__)
    with pytest.raises(AttributeError, match=f"{name}.*has no attribute 'nothing'"):
        _ = package.nothing
