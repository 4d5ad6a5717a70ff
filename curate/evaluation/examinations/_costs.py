"""What naming an image wrongly costs: the decision of least expected cost, from a table the user gives.

    decision = argmin over k of sum over c of p(c) cost(c, k)       ties go to the class that sorts first

The table is a CSV file. Its first row and its first column hold class names; a cell is the cost, in any unit, of naming
an image of the row's class by the column's. Rows and columns come in any order; classes that the labeled set does not
have are passed over.

    ,good,scratch
    good,0,1
    scratch,50,0

Source: Elkan 2001, "The Foundations of Cost-Sensitive Learning".
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence

import numpy as np

from curate.evaluation._intervals import Metric
from curate.evaluation.examinations._detection import Question, Side
from embeddings import files
from embeddings.errors import SourceError, UsageError

LARGEST = 1 << 24  # bytes of a table
LAYOUT = "The first row and the first column hold the class names, every other cell a cost of 0 or more."


def read_costs(path: str, class_names: Sequence[str]) -> np.ndarray:
    """The costs [C, C] of naming an image of the row's class by the column's, in the order of ``class_names``.

    Raises:
        SourceError: no such file, or no text.
        UsageError: not square, a class missing or named twice, or a cell that is no number of 0 or more.
    """
    head, *body = _cells(path)
    columns, rows = head[1:], [line[0] for line in body]
    for names, kind in ((columns, "column"), (rows, "row")):
        _require_classes(path, names, kind, class_names)
    ragged = next((line for line in body if len(line) != len(head)), None)
    if ragged or len(rows) != len(columns):
        found = f"row {ragged[0]!r} has {len(ragged) - 1}" if ragged else f"there are {len(rows)} rows"
        raise UsageError(f"{path} is not square: {found}, and {len(columns)} columns have a name.", hint=LAYOUT)
    cost = {(line[0], name): (line[i + 1]) for line in body for i, name in enumerate(columns)}
    return np.array([[_number(path, row, column, cost) for column in class_names] for row in class_names])


def cheapest(probabilities: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """The class int64 [m] of least expected cost, from probabilities [m, C] and costs [C, C]."""
    best: np.ndarray = (probabilities @ costs).argmin(axis=1)
    return best


def cost_questions(probabilities: np.ndarray, truth: np.ndarray, costs: np.ndarray, normal: int) -> list[Question]:
    """The cost per image of the cheapest decisions, beside that of naming the most probable class, and ``normal``."""
    ways = {
        "cost": costs[truth, cheapest(probabilities, costs)],
        "cost_most_probable": costs[truth, probabilities.argmax(axis=1)],
        "cost_accepting_all": costs[truth, normal],
    }
    everything = (Side("image", np.ones(len(truth), bool)),)
    saved = {name.replace("cost", "saved_over"): paid - ways["cost"] for name, paid in list(ways.items())[1:]}
    return [
        Question(
            condition="costs",
            metric=name,
            unit="cost per image" if name in ways else "cost saved per image",
            answer=mean(values),
            sides=everything,
            is_share=False,
            lower_is_better=name in ways,
        )
        for name, values in {**ways, **saved}.items()
    ]


def mean(values: np.ndarray) -> Metric:
    """The metric "mean of the images' values" [m]."""
    return lambda weights: (weights @ values) / weights.sum(axis=1)


def _cells(path: str) -> list[list[str]]:
    """Cells without surrounding blanks, of every line that is not empty."""
    try:
        size = files.file_info(path).size
        if size > LARGEST:
            raise UsageError(f"{path} has {size:,} bytes; a table of costs has at most {LARGEST:,}.", hint=LAYOUT)
        text = files.read_bytes(path).decode("utf-8-sig")
        lines = [[cell.strip() for cell in line] for line in csv.reader(text.splitlines(), strict=True)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"The table of costs {path} cannot be read ({error}).", hint=LAYOUT) from error
    kept = [line for line in lines if any(line)]
    if len(kept) < 2:
        raise UsageError(f"{path} has {len(kept)} lines.", hint=LAYOUT)
    return kept


def _require_classes(path: str, names: list[str], kind: str, class_names: Sequence[str]) -> None:
    missing = [name for name in class_names if name not in names]
    if missing:
        raise UsageError(f"{path} has no {kind} for {', '.join(map(repr, missing[:5]))}.", hint=LAYOUT)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"{path} has two {kind}s for {', '.join(map(repr, twice[:5]))}.", hint=LAYOUT)


def _number(path: str, row: str, column: str, cells: dict[tuple[str, str], str]) -> float:
    text = cells[row, column]
    try:
        cost = float(text)
    except ValueError:
        cost = math.nan
    if not (math.isfinite(cost) and cost >= 0):
        raise UsageError(f"{path}: the cost of {column!r} for {row!r} is {text!r}.", hint=LAYOUT)
    return cost
