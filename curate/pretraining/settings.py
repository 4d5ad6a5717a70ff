"""Everything a run depends on, resolved from what the user gave."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypedDict, Unpack

from curate.pretraining.adaptation import Adaptation
from curate.pretraining.backbones import Backbone, resolve_backbone
from curate.pretraining.execution import Execution
from curate.pretraining.images import images_of
from curate.pretraining.methods import METHODS, MethodConfig, default_recipe
from curate.pretraining.schedule import Schedule
from curate.pretraining.stages import Order
from curate.results import Selection
from embeddings.encoders.networks import takes_masks
from embeddings.errors import UnknownNameError, UsageError


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The configuration of one run; the same settings give the same run."""

    method: str
    recipe: MethodConfig
    backbone: Backbone
    samples: int
    order: Order
    adapt: Adaptation
    seed: int
    selection: str  # digest
    spend: str = ""  # what the samples were bought for, if they were not given

    @property
    def earlier(self) -> tuple[Path, ...]:
        """Folders of the runs that this one starts from or is taught by."""
        kind, _, taught_by = str(getattr(self.recipe, "teacher", "")).partition(":")
        teacher = Path(taught_by) if kind == "run" else None
        return tuple(folder for folder in (self.backbone.folder, teacher) if folder is not None)

    def document(self) -> dict[str, Any]:
        """Plain JSON object; holds no path."""
        backbone = self.backbone
        return {
            "schema": "curate.pretrain/1",
            "method": self.method,
            "recipe": json.loads(json.dumps(asdict(self.recipe))),  # no tuples
            "backbone": backbone.network,
            "size": backbone.size,
            "init": backbone.init,
            "init_weights": backbone.weights,
            "samples": self.samples,
            "order": str(self.order),
            "adapt": str(self.adapt),
            "seed": self.seed,
            "selection": self.selection,
            "spend": self.spend,
        }


class Options(TypedDict, total=False):
    """What ``plan`` and ``pretrain`` both take beside the budget: what the run is, then how it is computed."""

    method: str  # a name in METHODS; default simclr
    backbone: str | None  # a name of embeddings.encoders.networks; default by method and init
    init: str  # scratch (default), public or run:DIR
    batch: int | None  # images per step; default the recipe's
    size: int | None  # edge of the views in pixels; default the backbone's
    order: str  # of the selection's stages: stages (default), reversed, mixed or ramp; see curate.pretraining.stages
    adapt: str  # what of the backbone is trained: all (default), last:N or lora:R; see curate.pretraining.adaptation
    seed: int  # of weights, order and views; default 0
    config: MethodConfig | None  # the method's knobs; default its recipe for this init
    device: str  # auto (default), cpu, cuda, ...
    precision: str  # auto (default), float32, bfloat16 or float64
    chunks: int  # parts in which a batch passes the backbone; default 1
    chunk_stats: bool  # let batch norms see each of these parts by itself; default no
    compile: bool  # the backbone, with torch.compile; default no
    abort: bool  # stop a run that has been ill for long (see curate.pretraining.health); default no
    probe: str  # address of the target's labeled training images, to watch the features by; default none
    tracker: str  # shows the curves beside curves.jsonl: tensorboard, or one of others; default none
    keep: int  # checkpoints; default 2
    cache: float  # GB of disk that the decoded images may take meanwhile; default 20; see curate.pretraining.supply
    workers: int | None  # threads that decode images at each visit; default one per core


def resolve_execution(**options: Unpack[Options]) -> Execution:
    """How a run with these options is computed.

    Raises:
        UnknownNameError: no such precision.
        UsageError: less than one chunk or worker, or a negative cache.
    """
    names = Execution.__dataclass_fields__
    return Execution(**{name: value for name, value in options.items() if name in names})  # type: ignore[arg-type]


def resolve_settings(selection: Selection, *, samples: int, **options: Unpack[Options]) -> Settings:
    """Fills in defaults and refuses what cannot be met, before anything is written.

    Raises:
        UnknownNameError: method, backbone or init.
        TooFewImagesError: fewer than 8 images.
        UsageError: less than one batch of samples, a config of another method, or a backbone that the method cannot
            train.
    """
    method, init = options.get("method", "simclr"), options.get("init", "scratch")
    backbone = _resolve_network(method, options.get("backbone"), init=init, size=options.get("size"))
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
        adapt=Adaptation.parse(options.get("adapt", "all")),
        seed=seed,
        selection=selection.digest,
    )


def _resolve_network(method: str, network: str | None, *, init: str, size: int | None) -> Backbone:
    """The backbone asked for, or the method's default one for this init; a run brings its own."""
    if method not in METHODS:
        raise UnknownNameError("method", method, METHODS)
    entry = METHODS[method]
    if network is None and init in ("scratch", "public"):
        public = "vit-s" if entry.tokens else "lite0"
        network = entry.backbone if init == "scratch" else public
    backbone = resolve_backbone(network, init=init, size=size)
    if entry.tokens and not takes_masks(backbone.network):
        raise UsageError(
            f"Method {method!r} hides patches of a vision transformer; {backbone.network} is none.",
            hint="Use tiny-vit, vit-ti, vit-s, vit-b or timm:vit_NAME.",
        )
    return backbone


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
