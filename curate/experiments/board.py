"""What a queue tells of its tasks: how many are done, what is under way where, what failed and why."""

from __future__ import annotations

from curate.experiments.task import ERROR, Outcome, Task
from embeddings.errors import TasksFailedError
from embeddings.progress import Progress


class Board:
    """What is done, what failed, and what is under way where."""

    def __init__(self, *, total: int, done: int, progress: Progress) -> None:
        self.total, self.done = total, done
        self.failed: dict[str, str] = {}
        self._under_way: dict[int, str] = {}
        self._progress = progress

    def begin(self, task: Task, slot: int = 0) -> None:
        """A task was taken up in a slot."""
        self._under_way[slot] = task.name
        self._tell()

    def note(self, task: Task, outcome: Outcome, why: str = "", slot: int = 0) -> None:
        """What became of it, and why it failed."""
        self._under_way.pop(slot, None)
        self.done += outcome == "done"
        if outcome == "failed":
            self.failed[task.name] = why
        self._tell()

    def listener(self, task: Task, slot: int = 0) -> Progress:
        """Takes a task's own progress; its announcements are passed on under its name."""

        def told(stage: str, done: int, total: int, note: str = "") -> None:
            if not total:
                self._progress(stage, done, total, f"{task.name}: {note}")
                return
            self._under_way[slot] = f"{task.name}: {stage} {100 * done // total}%"
            self._tell()

        return told

    def require_none_failed(self) -> None:
        """Raises a TasksFailedError that names all failures."""
        if self.failed:
            reasons = "; ".join(f"{name}: {' '.join(why.split())[:160]}" for name, why in self.failed.items())
            raise TasksFailedError(
                f"{len(self.failed)} of {self.total} tasks failed: {reasons}",
                failed=self.failed,
                hint=f"{ERROR} in each one's folder says more. The same command tries them again.",
            )

    def _tell(self) -> None:
        failed = [f"{len(self.failed)} failed"] if self.failed else []
        self._progress("tasks", self.done, self.total, "; ".join([*failed, *self._under_way.values()]))
