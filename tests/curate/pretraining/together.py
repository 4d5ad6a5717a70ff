"""Calls a function in several processes that know of each other, as torchrun starts them."""

import multiprocessing
import os
import socket

import torch

SERVER = multiprocessing.get_context("forkserver")  # imports torch once, for all processes
SERVER.set_forkserver_preload(["curate.pretraining.trainer", "torch._dynamo"])  # the latter is most of torchvision


def together(count, function, *arguments):
    """All of them must end well."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    known = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    known |= {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    running = [
        SERVER.Process(target=_member, args=(known | {"RANK": str(rank)}, function, arguments), daemon=True)
        for rank in range(count)
    ]
    for process in running:
        process.start()
    for process in running:
        process.join(300)
    assert [process.exitcode for process in running] == [0] * count


def _member(environment, function, arguments):
    os.environ.update(environment)
    torch.set_num_threads(1)
    function(*arguments)
