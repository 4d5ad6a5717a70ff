"""What a file's evaluations test on, and how they are set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from curate import evaluation
from curate.config import Config, StudyConfig
from curate.evaluation._cross_fitting import require_foldable
from curate.evaluation.examinations import find_examinations
from curate.evaluation.settings import Settings, read_settings
from embeddings.pipeline import as_store
from embeddings.store import EmbeddingStore

SHIFTED = "robustness"  # the examination that takes the shift sets


def examination_settings(config: Config) -> Settings:
    """The knobs of ``[study]``; their paths are relative to the file, as all others.

    Raises:
        UnknownNameError, UsageError: as ``read_settings``, or folds with what they cannot be combined with.
    """
    study = config.study or StudyConfig()
    found = read_settings(study.set)
    require_foldable(found.folds, config.labeled_addresses, find_examinations(study.also))
    costs = config.located(found.costs) if found.costs else found.costs
    return replace(found, costs=costs, shifts={name: config.located(source) for name, source in found.shifts.items()})


def evaluation_parts(
    config: Config, *, encoder: str, work: Path | None, **embedding: Any
) -> list[str | EmbeddingStore]:
    """The images that a file's evaluations test on, given, held out or shifted: never to be selected.

    Of a cross-fitted evaluation (``folds``) they are all labeled images.
    """
    settings = examination_settings(config)
    parts: list[str | EmbeddingStore] = []
    for address in config.labeled_addresses.values():
        train, _, test = address.partition("::")
        if test:
            parts.append(test)
        else:
            store = as_store(train, name="labeled", encoder=encoder, work=work, **embedding)
            parts.append(evaluation.split_store(store, folds=settings.folds)[1])
    if config.study and SHIFTED in find_examinations(config.study.also):
        parts += dict.fromkeys(settings.shifts.values())
    return parts
