"""Several devices on one machine: a process each, which embeds one table after the other and sends back the result."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from queue import SimpleQueue
from time import perf_counter
from typing import Any

import pyarrow as pa

from embeddings.encoders.registry import get_encoder
from embeddings.encoders.torch_encoder import Placement
from embeddings.errors import CurateError
from embeddings.pipeline.batches import Embedder, Part, ordered
from embeddings.pipeline.clock import Clock
from embeddings.pipeline.known import Known
from embeddings.pipeline.processes import Worker, WorkerDied
from embeddings.sources import Address, open_source

PATIENCE_S = 24 * 3600.0  # for one table, on a slow device behind a slow network


def device_names(device: str) -> list[str]:
    """The devices meant by ``auto``, ``cpu``, ``cuda:1`` or ``cuda:0,cuda:1``: all CUDA devices, else one."""
    if device != "auto":
        return device.split(",")
    import torch

    return [f"cuda:{i}" for i in range(torch.cuda.device_count())] or ["cpu"]


class DeviceTeam:
    """One source under one encoder, embedded on several devices; does what an ``Embedder`` does on one."""

    def __init__(self, address: Address, encoder: str, devices: Sequence[str], *, workers: int) -> None:
        """``workers``: loaders in all."""
        self.settings: Mapping[str, Any] = {"precision": Placement.choose(devices[0]).precision}
        self._devices = devices
        self._make = (address, encoder, max(1, workers // len(devices)))

    def parts(
        self, tables: Sequence[pa.Table], *, known: Known | None, clock: Clock, told: Callable[[int], None]
    ) -> Iterator[Part]:
        """As ``Embedder.parts``; ``told`` hears of whole tables.

        Raises:
            CurateError: the process of a device ended.
        """
        idle: SimpleQueue[Worker] = SimpleQueue()
        recipe = known.recipe if known else None
        with ExitStack() as stack:
            pool = stack.enter_context(ThreadPoolExecutor(len(self._devices)))
            for device in self._devices:  # ended before the pool waits for its threads
                worker = Worker("embeddings.pipeline.devices:make_lane", device, *self._make, recipe)
                stack.callback(worker.stop)
                idle.put(worker)
            since = perf_counter()
            for part in ordered(pool, lambda table: _embedded(idle, table), tables, ahead=len(self._devices)):
                clock.book(since, encode=1)
                told(part.records)
                yield part
                since = perf_counter()


def make_lane(
    device: str, address: Address, encoder: str, workers: int, recipe: tuple[Any, ...] | None
) -> Callable[[pa.Table], Part]:
    """What the process of a device makes first: a function from a table of records to what came of them."""
    embedder = Embedder(open_source(address), get_encoder(encoder, device=device), workers=workers)
    known = Known.open(*recipe) if recipe else None

    def lane(table: pa.Table) -> Part:
        (part,) = embedder.parts([table], known=known, clock=Clock(), told=lambda _: None)
        return part

    return lane


def _embedded(idle: SimpleQueue[Worker], table: pa.Table) -> Part:
    worker = idle.get()
    try:
        part: Any = worker(table, patience_s=PATIENCE_S)
    except WorkerDied as died:
        raise CurateError(
            f"The process of a device stopped: it {died}.", hint="Run the same command again; it continues."
        ) from None
    finally:
        idle.put(worker)
    return part  # type: ignore[no-any-return]
