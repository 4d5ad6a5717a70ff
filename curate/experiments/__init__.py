"""Many ways to spend one budget, compared: files of arms."""

from curate.experiments._study import Study, test_parts

__all__ = ["Study", "test_parts"]
