"""Many ways to spend one budget, compared: files of arms."""

from curate.experiments._study import Study

__all__ = ["Study"]
