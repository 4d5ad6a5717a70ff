"""The steps of a file of arms; apart, so that the command line knows them without loading what takes them."""

from typing import Literal, get_args

Step = Literal["score", "select", "pretrain", "evaluate"]
STEPS: tuple[Step, ...] = get_args(Step)  # in the order they are taken
