from collections import Counter
from pathlib import Path

import pytest

from curate.config import load_config
from curate.experiments._grid import expand
from curate.experiments.protocol import read_protocol, require_runs
from curate.selection import METHODS

STUDIES = Path(__file__).parents[3] / "benchmarks" / "studies"
CELLS = {
    "demo": 16,
    "factors": 48,
    "full": 1_120,
    "methods": 42,
    "primary": 80,
    "questions": 90,
    "references": 24,
    "small": 114,
}


def packaged(name):
    return load_config(STUDIES / f"{name}.toml")


def test_these_are_all_packaged_studies():
    assert sorted(path.stem for path in STUDIES.glob("*.toml")) == sorted(CELLS)


@pytest.mark.parametrize("name", CELLS)
def test_a_packaged_study_expands_to_its_cells_at_one_budget(name):
    cells = expand(packaged(name))
    assert len(cells) == CELLS[name]
    assert len({(cell.target, cell.name) for cell in cells}) == len(cells)
    assert len({cell.samples for cell in cells}) == 1
    assert {cell.draw.select for cell in cells} <= METHODS.keys()


@pytest.mark.parametrize("name", CELLS)
def test_its_protocol_speaks_of_runs_that_there_are(name):
    config = packaged(name)
    protocol = read_protocol(config.protocol, arms=[arm.name for arm in config.arms], labeled=config.evaluate)
    cells = [{**vars(cell), "images": cell.draw.images} for cell in expand(config)]
    assert not protocol.is_exploratory
    assert protocol.matters == 0.01
    require_runs(protocol, cells)


@pytest.mark.parametrize("name", ["small", "full"])
def test_every_seed_of_every_arm_is_there_on_every_target_it_is_for(name):
    config = packaged(name)
    counts = Counter((cell.target, cell.arm, cell.seed) for cell in expand(config))
    for arm in config.arms:
        for target in [arm.target] if arm.target else config.targets:
            assert len({counts[target, arm.name, seed] for seed in config.grid.seeds}) == 1


@pytest.mark.parametrize("name", CELLS)
def test_its_paths_stay_inside_the_repository(name):
    config, root = packaged(name), STUDIES.parents[1]
    addresses = [*config.pool_addresses.values(), *(t.address(config.root) for t in config.all_targets.values())]
    assert all(Path(address.partition("#")[0]).resolve().is_relative_to(root) for address in addresses)


def test_the_data_of_the_demo_study_are_in_the_repository():
    config = packaged("demo")
    assert all(Path(address).exists() for address in [config.target_address, *config.pool_addresses.values()])
