"""The card of a run: what it says, that nothing of the user's acts as markup, and that its code does what it says."""

import re

import pytest
import torch
from safetensors.torch import save_file

from curate.pretraining.model_card import escaped, model_card
from curate.results import LEFT_OUT, SELECTION, Selection
from embeddings.encoders.networks import build_network

EVIL = "<script>alert(1)</script> | [x](javascript:1) `code` *bold*\n# title"


def selection_from(name, **facts):
    row = {field.name: None for field in SELECTION} | {"source": name, "key": "a", "uri": "a", "stage": 0, "rank": 0}
    table = SELECTION.empty_table().from_pylist([row], schema=SELECTION)
    return Selection(table=table, left_out=LEFT_OUT.empty_table(), facts={"method": "near-first", **facts}, sources={})


def facts(**more):
    recipe = {"training": {"optimizer": "adamw", "betas": [0.9, 0.999]}, "temperature": 0.2, "width": None}
    config = {"method": "simclr", "backbone": "tiny-resnet", "size": 32, "init": "scratch", "seed": 0, "recipe": recipe}
    found = {
        "config": config | more.pop("config", {}),
        "selection": "ab" * 32,
        "unique_images": 1000,
        "samples_seen": 20_000,
        "epochs_equivalent": 20.0,
        "diversity": 0.05,
        "errors": 3,
        "warnings": [],
        "health": {"verdict": "healthy", "detail": "The loss fell.", "step": 0, "remedy": ""},
        "probe": None,
        "stopped": None,
    }
    return found | more


def test_it_says_what_was_trained_on_what():
    text = model_card(facts(), selection_from("web", terms={"web": {"license": "cc-by"}}))
    assert text.startswith("# tiny\\-resnet, trained by simclr\n")
    for words in (
        "N = 1,000 images, C = 20,000 samples seen, E = C / N = 20.0, diversity D = N / C = 0.0500",
        "3 selected images could not be read",
        "ab" * 32,
        "| web | 1 | cc\\-by |",
        "| temperature | 0.2 |",
        "| betas | 0.9, 0.999 |",
        "**Healthy.** The loss fell.",
        "arXiv 2002.05709",
        "No probe was read",
        "run:DIR",
    ):
        assert words in text, words
    assert "width" not in text  # knobs that are not set
    assert "| web | 1 | not stated |" in model_card(facts(), selection_from("web"))


def test_it_says_how_ill_the_run_was_and_what_the_probe_saw():
    health = {"verdict": "collapsed", "detail": "All alike.", "step": 7, "remedy": "Lower it."}
    one = {"accuracy": 0.5, "se": 0.01}
    probe = {"images": 900, "classes": 3, "encoder": "lite0", "start": one, "end": {"accuracy": 0.7, "se": 0.02}}
    found = facts(health=health, stopped={"at": 5000, "saved": 0.75, "reason": ""}, probe=probe | {"frozen": one})
    text = model_card(found, selection_from("web"))
    assert "**Collapsed.** All alike." in text
    assert "It began at step 7. Lower it." in text
    assert "stopped at 5,000 samples, which saved 75% of C" in text
    assert "| this network | 70.0% | 2.0% |" in text
    assert "| lite0, frozen | 50.0% | 1.0% |" in text


def test_nothing_of_the_user_acts_as_markup():
    found = facts(warnings=[EVIL], health={"verdict": EVIL, "detail": EVIL, "step": 1, "remedy": EVIL})
    text = model_card(found, selection_from(EVIL, terms={EVIL: {"license": EVIL}}, method=EVIL))
    assert not re.search(r"(?<!\\)<script", text)
    assert not re.search(r"(?<!\\)\[x\]", text)
    assert not re.search(r"^# title", text, re.MULTILINE)
    tables = [line for line in text.splitlines() if "alert" in line and line.startswith("|")]
    assert [len(re.findall(r"(?<!\\)\|", line)) for line in tables] == [4]  # three cells
    assert escaped("a\n\n# b") == "a \\# b"


@pytest.mark.parametrize("network", ["lite0", "resnet18"])
def test_the_code_for_other_libraries_loads_the_weights(network, tmp_path, monkeypatch):
    ours = build_network(network, seed=3).module.eval()
    save_file({k: v.contiguous() for k, v in ours.state_dict().items()}, tmp_path / "backbone.safetensors")
    text = model_card(facts(config={"backbone": network}), selection_from("web"))
    code = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[-1].replace("DIR", str(tmp_path))
    from embeddings.encoders.torchvision_import import import_timm, import_torchvision

    import_timm(), import_torchvision()
    scope = {}
    exec(code, scope)
    model = scope["model"].eval()
    if hasattr(model, "fc"):
        model.fc = torch.nn.Identity()
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(model(x), ours(x), atol=1e-4, rtol=1e-4)


def test_it_says_what_unseen_images_said_or_why_there_were_none():
    losses = {"start": {"unseen": 3.0, "seen": 2.5}, "end": {"unseen": 2.0, "seen": 1.25}}
    looked = {"images": 64, "sources": {"web": 64}, "by_heart": 0.2, **losses}
    text = model_card(facts(unseen=looked), selection_from("web"))
    assert "The loss of 64 images of the same pools that it was not trained on went from 3.000 to 2.000" in text
    assert "that of as many training images from 2.500 to 1.250." in text
    text = model_card(facts(unseen={"images": 0, "reason": f"{EVIL}."}), selection_from("web"))
    assert "it was not trained on is not known: " in text
    assert "<script>" not in text
    assert "not trained on" not in model_card(facts(), selection_from("web"))
