"""README.md of a finished run: what was trained on what, how it went, how to use it, and what it is not good for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from curate.pretraining.methods import load_method
from curate.results import Selection
from embeddings import files

CARD = "README.md"
UNKNOWN = "not stated"
# How other libraries call a network, where it is not prefixed with the library's name.
ELSEWHERE = {
    "lite0": ("timm", "tf_efficientnet_lite0"),
    **{name: ("torchvision", name) for name in ("resnet18", "resnet34", "resnet50")},
    "convnext-tiny": ("torchvision", "convnext_tiny"),
}


def write_model_card(folder: Path, facts: Mapping[str, Any], selection: Selection) -> None:
    """Writes README.md, plain Markdown in which nothing of the user's acts as markup.

    Args:
        folder: of the run.
        facts: as in run.json.
        selection: what it was trained on.

    Raises:
        StorageError: no space.
    """
    with files.atomic_path(folder / CARD) as temporary:
        temporary.write_text(model_card(facts, selection), encoding="utf-8")


def model_card(facts: Mapping[str, Any], selection: Selection) -> str:
    """The text of the card."""
    config = facts["config"]
    parts = {
        f"{config['backbone']}, trained by {config['method']}": _summary(facts),
        "Trained on": _data(facts, selection),
        "How": _recipe(config),
        "How it went": _health(facts),
        "How to load it": _loading(facts),
        "Limits": _limits(facts),
    }
    sections = [f"## {escaped(title)}\n\n{text}" for title, text in parts.items()]
    return "\n\n".join(sections)[1:] + "\n"  # the first one is the title


def escaped(text: object) -> str:
    """The text on one line, with nothing in it that Markdown or HTML would act on."""
    return re.sub(r"([\\`*_{}\[\]()<>|#&!~$+-])", r"\\\1", " ".join(str(text).split()))


def _summary(facts: Mapping[str, Any]) -> str:
    config = facts["config"]
    paper = next((line for line in _lines(config["method"]) if "arXiv" in line), "")
    text = (
        f"A backbone without heads, trained without labels from {escaped(config['init'])} weights on images of "
        f"{config['size']} x {config['size']} pixels. {escaped(_lines(config['method'])[0])}"
    )
    return f"{text} ({escaped(paper)})" if paper else text


def _lines(method: str) -> list[str]:
    """The first line of a method's description, and where it comes from."""
    words = (load_method(method).__doc__ or method).strip()
    numbers = re.findall(r"arXiv\s+\d{4}\.\d{4,5}", words)
    return [words.splitlines()[0], *numbers[:1]]


def _data(facts: Mapping[str, Any], selection: Selection) -> str:
    terms = selection.facts.get("terms") or {}
    rows = [
        [name, f"{n:,}", (terms.get(name) or {}).get("license") or UNKNOWN] for name, n in selection.counts().items()
    ]
    budget = (
        f"N = {facts['unique_images']:,} images, C = {facts['samples_seen']:,} samples seen, "
        f"E = C / N = {facts['epochs_equivalent']:.1f}, diversity D = N / C = {facts['diversity']:.4f}. "
        f"{facts.get('errors', 0):,} selected images could not be read. "
        f"Selection {facts['selection']}, made by {escaped(selection.facts.get('method', 'hand'))}."
    )
    return f"{budget}\n\n{_table(['source', 'images', 'license'], rows)}"


def _recipe(config: Mapping[str, Any]) -> str:
    recipe = dict(config["recipe"])
    training = recipe.pop("training", {})
    rest = {name: config.get(name) for name in ("init", "adapt", "order", "seed")}
    knobs = {**rest, **recipe, **training}
    return _table(["knob", "value"], [[name, _word(value)] for name, value in knobs.items() if value is not None])


def _health(facts: Mapping[str, Any]) -> str:
    health, stopped = facts["health"], facts.get("stopped")
    words = [f"**{escaped(health['verdict'].capitalize())}.** {escaped(health['detail'])}"]
    if health.get("remedy"):
        words.append(f"It began at step {health['step']:,}. {escaped(health['remedy'])}")
    if stopped:
        words.append(f"The run was stopped at {stopped['at']:,} samples, which saved {stopped['saved']:.0%} of C.")
    return "\n\n".join([*words, _probe(facts.get("probe")), *_unseen(facts.get("unseen"))])


def _probe(probe: Mapping[str, Any] | None) -> str:
    if probe is None:
        return "No probe was read: whether the features serve a task is not known."
    named = {"frozen": f"{probe['encoder']}, frozen", "start": "this network, before training", "end": "this network"}
    rows = [[words, f"{probe[key]['accuracy']:.1%}", f"{probe[key]['se']:.1%}"] for key, words in named.items()]
    title = f"Linear probe, cross fitted on {probe['images']:,} labeled images of {probe['classes']:,} classes:"
    return f"{title}\n\n{_table(['features', 'accuracy', 'standard error'], rows)}"


def _unseen(unseen: Mapping[str, Any] | None) -> list[str]:
    if unseen is None:  # of an earlier version
        return []
    if not unseen["images"]:
        return [f"The loss of images that it was not trained on is not known: {escaped(unseen['reason'].rstrip('.'))}."]
    start, end = unseen["start"], unseen["end"]
    paths = [f"{start[name]:.3f} to {end[name]:.3f}" for name in ("unseen", "seen")]
    words = f"images of the same pools that it was not trained on went from {paths[0]}, that of as many training images"
    return [f"The loss of {unseen['images']:,} {words} from {paths[1]}."]


def _loading(facts: Mapping[str, Any]) -> str:
    network, size = facts["config"]["backbone"], facts["config"]["size"]
    ours = [
        "from pathlib import Path",
        "",
        "from embeddings.encoders.checkpoint import load_backbone",
        "",
        'network, size = load_backbone(Path("DIR"))  # network.module: a torch module; pixels: 0 to 255, [n, 3, S, S]',
        "features = network.module.eval()((pixels - mean) / std)  # network.mean and network.std, per channel",
    ]
    text = [
        "DIR is this folder. In every command of curate it is the encoder `run:DIR`, with its preprocessing. In torch:",
        _code(ours),
        f"Images are squashed to {size} x {size} pixels (bicubic).",
    ]
    return "\n\n".join([*text, *_elsewhere(network)])


def _elsewhere(network: str) -> list[str]:
    library, _, rest = network.partition(":")
    library, name = (library, rest) if rest else ELSEWHERE.get(network, ("", ""))
    if library not in ("timm", "torchvision"):
        return []
    build, end = f'timm.create_model("{name}", num_classes=0)', ")"
    if library == "torchvision":
        build, end = f'torchvision.models.get_model("{name}")', ", strict=False)  # there is no classifier in it"
    lines = [
        f"import {library}",
        "from safetensors.torch import load_file",
        "",
        f"model = {build}",
        f'model.load_state_dict(load_file("DIR/backbone.safetensors"){end}',
    ]
    return [f"The tensors have the names of {library}:", _code(lines)]


def _limits(facts: Mapping[str, Any]) -> str:
    lines = [
        "Trained on the images above alone: what it knows of others is not known.",
        "Before you use it, compare it with the frozen public encoder on labeled test images (curate evaluate).",
        "Licenses are as stated when the images were selected (a class, or the column that holds it), not checked.",
        *facts.get("warnings", []),
    ]
    return "\n".join(f"- {escaped(line)}" for line in lines)


def _code(lines: Sequence[str]) -> str:
    return "\n".join(["```python", *lines, "```"])


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [[escaped(cell) for cell in line] for line in (header, *rows)]
    lines.insert(1, ["---"] * len(header))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _word(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
