"""The resolved recipe of a run beside the published ones: what is set, to what, and where it differs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

from curate.pretraining.budget import Plan, plan_of
from curate.pretraining.knobs import flat
from curate.pretraining.methods import load_method
from curate.pretraining.optimizers import excluded
from curate.pretraining.settings import Options, Settings, open_selection
from curate.pretraining.spend import resolve
from curate.pretraining.trainer import Trainer
from curate.pretraining.watch import require_watchable
from curate.results import Selection

PUBLISHED = ("paper", "code")


@dataclass(frozen=True)
class Explanation:
    """What a run will do, knob by knob."""

    plan: Plan
    settings: Settings
    recipes: Mapping[str, Mapping[str, Any]]  # by name, this run's first, each by knob
    excluded: tuple[str, ...]  # parameters without weight decay, and without LARS's trust ratio

    def to_json(self) -> dict[str, Any]:
        """Plain JSON object."""
        recipes = {name: dict(knobs) for name, knobs in self.recipes.items()}
        plan, config = self.plan.to_json(), self.settings.document()
        return {"plan": plan, "config": config, "recipes": recipes, "excluded": list(self.excluded)}

    def lines(self) -> list[str]:
        """The plan, and what is excluded from decay, for people."""
        decay = f"{len(self.excluded):,} parameter tensors (biases, norms) neither decay nor adapt to their length."
        return [*self.plan.lines(), decay]

    def rows(self) -> list[list[str]]:
        """Knob, its value here, and the published ones; those that differ are told."""
        ours, *others = self.recipes.values()
        return [
            [name, _word(value), *(_word(other.get(name), value) for other in others)] for name, value in ours.items()
        ]

    def header(self) -> list[str]:
        """What the columns of ``rows`` hold."""
        return ["knob", "this run", *list(self.recipes)[1:]]


def explain(selection: Selection | str | Path, *, samples: int | str, **options: Unpack[Options]) -> Explanation:
    """Resolves what ``pretrain`` with these arguments will do; reads no image and writes nothing.

    Arguments and errors are those of ``pretrain``.
    """
    require_watchable(**options)
    chosen = open_selection(selection)
    settings, execution = resolve(chosen, samples=samples, **options)
    trainer, recipes = Trainer(settings, execution), load_method(settings.method).RECIPES
    published = {name: flat(recipes[name]) for name in PUBLISHED if name in recipes}
    found = plan_of(chosen, settings, trainer)
    return Explanation(
        found, settings, {"this run": flat(settings.recipe), **published}, tuple(excluded(trainer.learner))
    )


def _word(value: Any, here: Any = None) -> str:
    if value == here and here is not None:
        return "same"
    if isinstance(value, tuple | list):
        return ", ".join(_word(part) for part in value)
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
