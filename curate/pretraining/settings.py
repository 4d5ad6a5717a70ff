"""Everything a run depends on, resolved from what the user gave."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypedDict, Unpack

from curate.pretraining.backbones import Backbone, resolve_backbone
from curate.pretraining.images import images_of
from curate.pretraining.methods import MethodConfig, default_recipe
from curate.pretraining.schedule import Schedule
from curate.pretraining.stages import Order
from curate.results import Selection
from embeddings.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The configuration of one run; the same settings give the same run."""

    method: str
    recipe: MethodConfig
    backbone: Backbone
    samples: int
    order: Order
    seed: int
    selection: str  # digest

    def document(self) -> dict[str, Any]:
        """Plain JSON object; holds no path."""
        backbone = self.backbone
        return {
            "schema": "curate.pretrain/1",
            "method": self.method,
            "recipe": json.loads(json.dumps(asdict(self.recipe))),  # as it reads back: no tuples
            "backbone": backbone.network,
            "size": backbone.size,
            "init": backbone.init,
            "init_weights": backbone.weights,
            "samples": self.samples,
            "order": str(self.order),
            "seed": self.seed,
            "selection": self.selection,
        }


class Options(TypedDict, total=False):
    """What ``plan`` and ``pretrain`` both take beside the budget."""

    method: str  # a name in METHODS; default simclr
    backbone: str | None  # tiny-resnet, resnet18, resnet18-small, resnet50 or lite0; default lite0 for public weights
    init: str  # scratch (default), public or run:DIR
    batch: int | None  # images per step; default the recipe's
    size: int | None  # edge of the views in pixels; default the backbone's
    order: str  # of the selection's stages: stages (default), reversed, mixed or ramp; see curate.pretraining.stages
    seed: int  # of weights, order and views; default 0
    config: MethodConfig | None  # the method's knobs; default its recipe for this init


def resolve_settings(selection: Selection, *, samples: int, **options: Unpack[Options]) -> Settings:
    """Fills in defaults and refuses what cannot be met, before anything is written.

    Raises:
        UnknownNameError: method, backbone or init.
        TooFewImagesError: fewer than 8 images.
        UsageError: less than one batch of samples, or a config of another method.
    """
    method, init = options.get("method", "simclr"), options.get("init", "scratch")
    backbone = resolve_backbone(options.get("backbone"), init=init, size=options.get("size"))
    recipe = _resolve_recipe(method, backbone.init, options.get("config"), options.get("batch"))
    order, seed = Order.parse(options.get("order", "stages")), options.get("seed", 0)
    images, batch = images_of(selection.rows()), recipe.training.batch
    Schedule(images, samples=samples, batch=batch, seed=seed, order=order)  # refuses what it cannot meet
    return Settings(
        method=method,
        recipe=recipe,
        backbone=backbone,
        samples=samples,
        order=order,
        seed=seed,
        selection=selection.digest,
    )


def _resolve_recipe(method: str, init: str, config: MethodConfig | None, batch: int | None) -> MethodConfig:
    recipe = default_recipe(method, init)
    if config is not None and type(config) is not type(recipe):
        raise UsageError(
            f"The config is a {type(config).__qualname__}, not one of method {method!r}.",
            hint=f"Use {type(recipe).__module__}.Config.",
        )
    recipe = config or recipe
    return recipe if batch is None else replace(recipe, training=replace(recipe.training, batch=batch))


def open_selection(selection: Selection | str | Path) -> Selection:
    """The selection itself, or the one saved in a folder."""
    return selection if isinstance(selection, Selection) else Selection.open(selection)
