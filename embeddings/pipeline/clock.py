"""Where the time of a pipeline goes: how long its coordinating thread waits, and for which stage."""

from __future__ import annotations

from time import perf_counter
from typing import Any

STAGES = ("read", "decode", "encode", "write")
SETTLED_S, WORTH_SAYING = 2.0, 0.05


class Clock:
    """Books waits, since the start and since the last lap; what is left is the coordinator's own work."""

    def __init__(self) -> None:
        self.records = 0  # so far; whoever counts them adds to it
        self._start = self._lap = (perf_counter(), dict.fromkeys(STAGES, 0.0))
        self._waited = dict.fromkeys(STAGES, 0.0)

    def book(self, since: float, **shares: float) -> None:
        """Books the time since ``since`` to stages in proportion to their shares."""
        waited, whole = perf_counter() - since, sum(shares.values()) or 1.0
        for stage, share in shares.items():
            self._waited[stage] += waited * share / whole

    def note(self) -> str:
        """Speed so far and the stage that was waited for most, for a person; nothing before they have settled."""
        found = self._since(*self._start, self.records)
        stage, share = max(found["waiting"].items(), key=lambda pair: pair[1])
        waiting = f", {share:.0%} of the time waiting for {stage}" if share >= WORTH_SAYING else ""
        return f"{found['images_per_second']:,.0f} images/s{waiting}" if found["seconds"] > SETTLED_S else ""

    def lap(self, images: int) -> dict[str, Any]:
        """These images, seconds, images per second and share of the time waiting by stage, since the last lap."""
        found = self._since(*self._lap, images)
        self._lap = (perf_counter(), dict(self._waited))
        return found

    def _since(self, then: float, waited: dict[str, float], images: int) -> dict[str, Any]:
        seconds = max(perf_counter() - then, 1e-9)
        shares = {stage: min(1.0, round((self._waited[stage] - waited[stage]) / seconds, 3)) for stage in STAGES}
        rate = round(images / seconds, 1)
        return {"images": images, "seconds": round(seconds, 3), "images_per_second": rate, "waiting": shares}
