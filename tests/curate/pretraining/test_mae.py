"""MAE against its formula written out patch by patch, and what must and must not change its loss."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from curate.pretraining.gradients import Step, backward
from curate.pretraining.methods import load_method, mae
from curate.pretraining.methods.mae import normalize_patches, patch_error, patchify, pick, split_patches
from curate.pretraining.sample import Sample, Seen
from curate.pretraining.settings import resolve_settings
from embeddings.encoders.networks import IMAGENET_MEAN, IMAGENET_STD, Network, build_network
from embeddings.encoders.transformers import sincos_positions
from embeddings.errors import UnknownNameError, UsageError

CONFIG = mae.Config(training=mae.RECIPES["scratch"].training, decoder_width=32, decoder_blocks=2, decoder_heads=2)


def seen(views, seed=0, visit=0):
    hashes = np.arange(len(views), dtype=np.uint64) * np.uint64(2**40 + 3)
    pixels = np.zeros((len(views), 3, 1, 1), np.uint8)
    return Seen([views], Sample(pixels, hashes, np.full(len(views), visit)), seed)


def images(n, size=32, seed=0):
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def learner(config=CONFIG, size=32, **scaling):
    network = build_network("tiny-vit", size=size, seed=1)
    scales = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD, **scaling}
    with torch.random.fork_rng():
        torch.manual_seed(2)
        built = mae.build(Network("tiny-vit", network.module, 128, **scales), config)
    return built.double()


@pytest.fixture(scope="module")
def model():
    return learner()


def hidden_error(predicted, pixels):
    return patch_error(predicted, normalize_patches(pixels))


def losses(model, batch):
    return model.project(model.encode(batch).parts)[0]


def reference_patches(image, p):
    """Patches of [3, S, S] one by one, pixel by pixel, channel by channel."""
    channels, size, _ = image.shape
    return np.array(
        [
            [image[c, top + i, left + j] for i in range(p) for j in range(p) for c in range(channels)]
            for top in range(0, size, p)
            for left in range(0, size, p)
        ]
    )


def reference_loss(predicted, pixels):
    """Image by image, patch by patch, value by value; both [b, h, P]."""
    result = []
    for painted, patches in zip(predicted, pixels, strict=True):
        total = 0.0
        for y, x in zip(painted, patches, strict=True):
            mean = sum(x) / len(x)
            variance = sum((value - mean) ** 2 for value in x) / (len(x) - 1)
            wanted = [(value - mean) / math.sqrt(variance + 1e-6) for value in x]
            total += sum((a - b) ** 2 for a, b in zip(y, wanted, strict=True)) / len(x)
        result.append(total / len(patches))
    return np.array(result)


@pytest.mark.parametrize(("size", "patch"), [(8, 4), (12, 4), (16, 8), (6, 2)])
def test_patches_equal_the_loop(size, patch):
    x = images(2, size)
    wanted = np.stack([reference_patches(image, patch) for image in x.numpy()])
    assert np.array_equal(patchify(x, patch).numpy(), wanted)


def test_patches_are_in_the_order_of_the_network_s_tokens(model):
    """The patch convolution is a linear layer on them."""
    x, embed = images(2), model.backbone.patch_embed
    weight = embed.proj.weight.permute(0, 2, 3, 1).reshape(128, -1)  # row, column, channel
    tokens = patchify(x, 4) @ weight.mT + embed.proj.bias
    torch.testing.assert_close(embed(x).reshape(2, 64, 128), tokens)


@given(st.integers(1, 3), st.integers(1, 4), st.integers(2, 12), st.floats(1e-4, 1e3))
def test_loss_equals_the_double_loop(b, hidden, values, spread):
    rng = np.random.default_rng(b + 10 * hidden + 100 * values)
    predicted, pixels = rng.normal(size=(2, b, hidden, values))
    found = hidden_error(torch.tensor(predicted), torch.tensor(spread * pixels))
    np.testing.assert_allclose(found.numpy(), reference_loss(predicted, spread * pixels), rtol=1e-9)


def test_gradient_equals_the_formula_s():
    """dL/dy = 2 (y - t) / (h P), image by image."""
    rng = np.random.default_rng(0)
    predicted = torch.tensor(rng.normal(size=(2, 3, 12)), requires_grad=True)
    pixels = torch.tensor(rng.normal(size=(2, 3, 12)))
    hidden_error(predicted, pixels).sum().backward()
    wanted = 2 * (predicted.detach() - normalize_patches(pixels)) / 36
    torch.testing.assert_close(predicted.grad, wanted)


@pytest.mark.parametrize("patch", [4, 8, 16])
def test_the_predictor_of_the_mean_has_its_closed_form(patch):
    """(P - 1)/P v / (v + 1e-6) by unbiased variance; 0 where there is nothing to see."""
    count, x = 3 * patch**2, images(2, 32)
    pixels = patchify(x, patch)
    blank = torch.zeros_like(pixels)
    assert hidden_error(blank, pixels).numpy() == pytest.approx((count - 1) / count, rel=1e-5)
    for scale in (1e-3, 1e-4):
        variance = (scale * pixels).var(dim=-1)
        wanted = (count - 1) / count * (variance / (variance + 1e-6)).mean(dim=1)
        torch.testing.assert_close(hidden_error(blank, scale * pixels), wanted)
    assert not hidden_error(blank, torch.ones_like(pixels)).any()
    assert mae.chance_loss(CONFIG, 64) == 47 / 48


def test_a_patch_s_brightness_and_contrast_do_not_matter():
    pixels, predicted = patchify(images(2), 4), patchify(images(2, seed=1), 4)
    torch.testing.assert_close(
        hidden_error(predicted, 5 * pixels + 3), hidden_error(predicted, pixels), rtol=1e-5, atol=0
    )


def test_half_precision_is_computed_in_float32():
    predicted, pixels = (patchify(images(2, seed=s), 4) for s in (0, 1))
    with torch.autocast("cpu", torch.bfloat16):
        found = hidden_error(predicted.bfloat16(), pixels.float())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), hidden_error(predicted.bfloat16().double(), pixels), rtol=1e-5, atol=0)


@given(st.integers(2, 200), st.floats(0.01, 0.99))
def test_the_mask_is_exact_for_every_image(count, share):
    u = torch.tensor(np.random.default_rng(count).random((5, count)))
    visible, hidden = split_patches(u, share)
    kept = min(max(math.floor(round(count * (1 - share), 6)), 1), count - 1)
    assert visible.shape == (5, kept)
    for image in range(5):
        assert sorted([*visible[image].tolist(), *hidden[image].tolist()]) == list(range(count))
        assert u[image, visible[image]].max() < u[image, hidden[image]].min()


def test_the_paper_s_counts():
    """49 of 196 stay; rounding of 1 - .75, .6, .9 does not lose one."""
    for count, share, kept in ((196, 0.75, 49), (64, 0.75, 16), (49, 0.75, 12), (100, 0.9, 10), (100, 0.6, 40)):
        assert split_patches(torch.rand(1, count), share)[0].shape[1] == kept


def test_the_mask_depends_on_seed_image_and_visit_alone(model):
    x = images(6)
    _, _, visible, hidden, _ = model.encode(seen(x)).parts
    assert (visible.shape, hidden.shape) == ((6, 16), (6, 48))
    assert len({tuple(row.tolist()) for row in visible}) == 6
    again = model.encode(seen(x.flip(3))).parts[2]
    part = model.encode(seen(x).part(slice(2, 5))).parts[2]
    assert torch.equal(again, visible)
    assert torch.equal(part, visible[2:5])
    for other in (seen(x, seed=1), seen(x, visit=1)):
        assert not torch.equal(model.encode(other).parts[2], visible)


def test_every_patch_is_hidden_equally_often(model):
    places = torch.cat([model.encode(seen(images(50), visit=v)).parts[3].flatten() for v in range(8)])
    share = torch.bincount(places, minlength=64) / 400
    assert (share - 0.75).abs().max() < 5 * math.sqrt(0.75 * 0.25 / 400)


def hide(x, places, patch=4):
    """Other pixels in some patches of each image."""
    patches = torch.nn.functional.unfold(x, patch, stride=patch)
    for image, where in enumerate(places):
        patches[image][:, where] = torch.randn(patches.shape[1], len(where), dtype=x.dtype)
    return torch.nn.functional.fold(patches, x.shape[-2:], patch, stride=patch)


def test_the_backbone_does_not_see_hidden_patches(model):
    x = images(3)
    prefix, tokens, _, hidden, pixels = model.encode(seen(x)).parts
    changed = model.encode(seen(hide(x, hidden))).parts
    torch.testing.assert_close((changed[0], changed[1]), (prefix, tokens))
    assert not torch.allclose(changed[4], pixels)


def test_only_hidden_patches_are_targets(model):
    """What is painted being the same, other visible pixels change nothing: they are not even kept."""
    x = images(3)
    prefix, tokens, visible, hidden, pixels = model.encode(seen(x)).parts
    changed = model.encode(seen(hide(x, visible))).parts
    assert torch.equal(changed[4], pixels)
    found = model.project((prefix, tokens, visible, hidden, changed[4]))[0]
    assert torch.equal(found, model.project((prefix, tokens, visible, hidden, pixels))[0])
    assert torch.equal(pixels, pick(patchify(x, 4), hidden))


def test_losses_equal_a_plainly_written_pass(model):
    """The paper's way: a full row of tokens in the order of the image, each with its position."""
    x = images(3)
    found, batch = losses(model, seen(x)), seen(x)
    backbone, decoder = model.backbone, model.decoder
    order = batch.uniforms(64).argsort(dim=1)
    grid = sincos_positions(8, 32).double()
    for image in range(3):
        kept, gone = order[image, :16], order[image, 16:]
        embedded = backbone.patch_embed(x[image : image + 1]).reshape(64, 128) + sincos_positions(8, 128).double()
        tokens = torch.cat([backbone.cls_token[0], embedded[kept]])[None]
        for block in backbone.blocks:
            tokens = block(tokens)
        known = decoder.embed(backbone.norm(tokens))[0]
        row = decoder.token[0].repeat(64, 1)
        row[kept] = known[1:]
        row = torch.cat([known[:1], row + grid])[None]
        for block in decoder.blocks:
            row = block(row)
        painted = decoder.paint(decoder.norm(row))[0, 1:]
        wanted = normalize_patches(patchify(x[image : image + 1], 4)[0])
        assert found[image].item() == pytest.approx(((painted - wanted)[gone] ** 2).mean().item(), rel=1e-9)


def test_the_order_of_the_rows_does_not_matter_to_the_decoder(model):
    """Shuffled with their places, visible tokens tell the same; hidden patches come out in the order asked for."""
    prefix, tokens, visible, hidden, _ = model.encode(seen(images(2))).parts
    painted = model.decoder(prefix, tokens, visible, hidden)
    mixed, turned = torch.randperm(16), torch.randperm(48)
    again = model.decoder(prefix, tokens[:, mixed], visible[:, mixed], hidden[:, turned])
    torch.testing.assert_close(again, painted[:, turned])
    wrong = model.decoder(prefix, tokens[:, mixed], visible, hidden)
    assert not torch.allclose(wrong, painted)


def test_targets_are_imagenet_s_pixels_whatever_the_network_s_scaling():
    """A network that scales otherwise is fed other numbers for the same image, and is asked for the same ones."""
    mean, std = (127.0, 127.0, 127.0), (128.0, 64.0, 32.0)
    pixels = 255 * torch.rand(2, 3, 32, 32, dtype=torch.float64)
    scaled = [
        (pixels - torch.tensor(m, dtype=torch.float64).view(3, 1, 1))
        / torch.tensor(s, dtype=torch.float64).view(3, 1, 1)
        for m, s in ((IMAGENET_MEAN, IMAGENET_STD), (mean, std))
    ]
    usual = learner().encode(seen(scaled[0])).parts[4]
    other = learner(mean=mean, std=std).encode(seen(scaled[1])).parts[4]
    torch.testing.assert_close(other, usual, rtol=1e-5, atol=1e-5)
    hidden = learner().encode(seen(scaled[0])).parts[3]
    assert torch.equal(usual, pick(patchify(scaled[0], 4), hidden))


def test_a_batch_in_any_order_and_in_chunks():
    x, model = images(6), learner()
    batch, whole = seen(x), copy.deepcopy(model)
    found = backward(whole, batch, Step(0.0, 6))
    assert found.loss.item() == pytest.approx(losses(model, batch).mean().item())
    backward(model, batch, Step(0.0, 6, chunks=4))
    for one in (model, whole):
        one.after_step(0.0)
    assert model.diagnostics() == pytest.approx(whole.diagnostics())
    for one, two in zip(whole.parameters(), model.parameters(), strict=True):
        if one.requires_grad:
            torch.testing.assert_close(two.grad, one.grad, atol=1e-12, rtol=1e-9)
    order = [3, 0, 5, 1, 4, 2]
    mixed = Seen(
        [x[order]], Sample(*(a[order] for a in (batch.sample.pixels, batch.sample.hashes, batch.sample.visits))), 0
    )
    torch.testing.assert_close(losses(model, mixed), losses(model, batch)[order])


def test_the_logged_chance_is_the_loss_of_the_best_single_patch():
    model, batches = learner(), [images(3), images(5, seed=4) + 1]
    targets = []
    for x in batches:
        losses(model, seen(x))
        targets.append(normalize_patches(model.encode(seen(x)).parts[4]).reshape(-1, 48))
    targets = torch.cat(targets)
    best = targets.mean(dim=0)
    model.after_step(0.0)
    for _ in range(2):  # it may be asked again
        assert model.diagnostics()["chance_loss"] == pytest.approx((targets - best).square().mean().item(), rel=1e-6)
    model.after_step(0.0)
    assert model.diagnostics() == {}


def test_one_color_everywhere_is_no_achievement():
    """Its channels differ once they are scaled, so the target is not blank; one patch painted everywhere matches it."""
    model, gray = learner(), 100 - torch.tensor(IMAGENET_MEAN, dtype=torch.float64).view(3, 1, 1)
    x = (gray / torch.tensor(IMAGENET_STD, dtype=torch.float64).view(3, 1, 1)).expand(2, 3, 32, 32)
    losses(model, seen(x))
    pixels = model.encode(seen(x)).parts[4]
    assert hidden_error(torch.zeros_like(pixels), pixels).numpy() == pytest.approx(47 / 48, abs=1e-3)
    model.after_step(0.0)
    assert model.diagnostics()["chance_loss"] == pytest.approx(0, abs=1e-6)


def test_what_is_built(model):
    assert model.coupled is False
    assert model.backbone.global_pool == "token"
    assert not model.backbone.pos_embed.requires_grad
    assert model.decoder.paint.weight.shape == (48, 32)
    assert sorted(
        name for name, _ in model.named_parameters() if name.startswith("decoder") and name.count(".") == 1
    ) == ["decoder.token"]
    assert not any("_positions" in name or "_scale" in name for name in model.state_dict())
    bound = math.sqrt(6 / (32 + 48))
    assert 0.95 * bound < model.decoder.paint.weight.abs().max().item() <= bound
    x = images(2)
    _, tokens, *_ = model.encode(seen(x)).parts
    torch.testing.assert_close(model.encode(seen(x)).features, tokens.mean(dim=1))


def test_positions_never_move(model):
    model = learner()
    before = model.backbone.pos_embed.clone()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)
    losses(model, seen(images(4))).mean().backward()
    optimizer.step()
    assert torch.equal(model.backbone.pos_embed, before)


def test_the_paper_s_recipe():
    paper = mae.RECIPES["paper"]
    assert (paper.mask, paper.decoder_width, paper.decoder_blocks, paper.decoder_heads) == (0.75, 512, 8, 16)
    training = paper.training
    assert training.peak(4096) == pytest.approx(2.4e-3)
    assert (training.betas, training.weight_decay, training.batch) == ((0.9, 0.95), 0.05, 4096)
    (view,) = mae.views(paper)
    assert (view.crop_area, view.flip, view.jitter, view.gray, view.blur) == ((0.2, 1.0), 0.5, 0.0, 0.0, 0.0)
    assert load_method("mae") is mae


@pytest.mark.parametrize("backbone", ["tiny-resnet", "lite0", "torchvision:vit_b_16", "timm:test_resnet"])
def test_networks_without_tokens_are_refused_before_anything_is_written(selection, backbone):
    with pytest.raises(UsageError, match=rf"'mae' hides patches .*; {backbone} is none") as caught:
        resolve_settings(selection, samples=100, method="mae", backbone=backbone)
    assert "tiny-vit" in caught.value.hint
    with pytest.raises(UsageError, match=f"{backbone} is none"):
        mae.build(Network(backbone, torch.nn.Identity(), 1, 0.0, 1.0), CONFIG)


def test_the_default_backbone(selection):
    found = resolve_settings(selection, samples=100, method="mae").backbone
    assert (found.network, found.size) == ("tiny-vit", 32)
    assert resolve_settings(selection, samples=100, method="mae", init="public").backbone.network == "vit-s"
    assert resolve_settings(selection, samples=100, method="simclr").backbone.network == "tiny-resnet"
    assert resolve_settings(selection, samples=100, method="mae", backbone="timm:test_vit").backbone.size == 160


@pytest.mark.parametrize("wrong", [{"mask": 0.0}, {"mask": 1.0}, {"decoder_width": 60}, {"decoder_blocks": 0}])
def test_impossible_configs_are_refused(wrong):
    with pytest.raises(UsageError):
        mae.Config(training=CONFIG.training, **wrong)
    with pytest.raises(UnknownNameError):
        mae.Config(training=CONFIG.training, augmentation=("none",))
