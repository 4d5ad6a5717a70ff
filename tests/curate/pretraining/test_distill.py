import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from curate.pretraining.checkpoint import Mark, Origin, load_checkpoint, save_checkpoint
from curate.pretraining.methods import distill
from curate.pretraining.methods.distill import Standard, Teacher, one_minus_cosine
from curate.pretraining.recipe import Training
from curate.pretraining.sample import Seen
from embeddings.encoders import get_encoder
from embeddings.encoders.networks import IMAGENET_MEAN, IMAGENET_STD, Network
from embeddings.encoders.torch_encoder import weights_digest
from embeddings.errors import ForeignFolderError, UnknownNameError, UsageError


def config(**knobs):
    training = Training(optimizer="sgd", learning_rate=0.1, weight_decay=0.0)
    return distill.Config(**{"training": training, "teacher": "tiny"} | knobs)


def student(edge=8):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * edge * edge, 6))
    return Network("toy", module, dim=6, mean=IMAGENET_MEAN, std=IMAGENET_STD)


def view(n=5, edge=8, seed=0):
    """Normalized pixels as the student sees them."""
    pixels = np.random.default_rng(seed).integers(0, 256, (n, 3, edge, edge))
    mean, std = (np.reshape(v, (3, 1, 1)) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return pixels, torch.from_numpy((pixels - mean) / std).float()


def reference(predictions, targets):
    """One minus the cosine, in a loop."""
    pairs = zip(predictions, targets, strict=True)
    return np.mean([1 - p @ t / (np.linalg.norm(p) * np.linalg.norm(t)) for p, t in pairs])


def test_loss_and_gradient_are_those_of_the_loop():
    rng = np.random.default_rng(0)
    predictions, targets = rng.normal(size=(2, 4, 3))
    found = torch.tensor(predictions, requires_grad=True)
    loss = one_minus_cosine(found, torch.tensor(targets))
    loss.backward()
    assert loss.item() == pytest.approx(reference(predictions, targets), abs=1e-12)
    for at in np.ndindex(4, 3):
        up, down = predictions.copy(), predictions.copy()
        up[at] += 1e-5
        down[at] -= 1e-5
        slope = (reference(up, targets) - reference(down, targets)) / 2e-5
        assert found.grad[at].item() == pytest.approx(slope, abs=1e-8)


def test_loss_by_hand():
    eye = torch.eye(3)
    assert one_minus_cosine(7 * eye, eye / 3).item() == pytest.approx(0, abs=1e-6)
    assert one_minus_cosine(-eye, eye).item() == pytest.approx(2)
    assert one_minus_cosine(torch.zeros(3, 3), eye).item() == distill.chance_loss(config(), 3) == 1


def test_teacher_gives_what_its_encoder_gives_for_the_same_pixels():
    """At the encoder's own size nothing is resized: the student's scaling is undone, the encoder's applied."""
    encoder = get_encoder("lite0@32", device="cpu", precision="float32")
    pixels, seen = view(3, edge=32)
    images = [Image.fromarray(p.astype(np.uint8).transpose(1, 2, 0)) for p in pixels]
    wanted = encoder.encode(np.stack([encoder.prepare(image) for image in images]))
    teacher = Teacher("lite0@32", student())
    np.testing.assert_allclose(teacher(seen), wanted, atol=1e-4 * np.abs(wanted).max())
    teacher.network.conv_stem.weight.data.zero_()  # a copy: others use the encoder too
    np.testing.assert_array_equal(encoder.encode(np.stack([encoder.prepare(image) for image in images])), wanted)


def test_teacher_resizes_as_pillow_does():
    teacher = Teacher("lite0@64", student())
    pixels, seen = view(2, edge=32)
    images = [Image.fromarray(p.astype(np.uint8).transpose(1, 2, 0)) for p in pixels]
    encoder = get_encoder("lite0@64", device="cpu")
    wanted = encoder.encode(np.stack([encoder.prepare(image) for image in images]))
    assert F.cosine_similarity(teacher(seen), torch.from_numpy(wanted)).min() > 0.999  # Pillow rounds to whole values


@pytest.mark.usefixtures("tiny_teacher")
def test_teacher_never_trains():
    learner = distill.build(student(), config()).train()
    assert not any(layer.training for layer in learner.teacher.modules())
    assert not any(parameter.requires_grad for parameter in learner.teacher.parameters())
    assert learner.head.training
    before = {name: value.clone() for name, value in learner.teacher.state_dict().items()}
    step(learner, view()[1])
    assert all(torch.equal(value, before[name]) for name, value in learner.teacher.state_dict().items())


def step(learner, *chunks):
    """One step's passes; returns the targets of each chunk."""
    encoded = [learner.encode(Seen([chunk], None, seed=0)) for chunk in chunks]
    losses = [learner.loss(learner.project(one.parts), share=0.5) for one in encoded]
    torch.stack(losses).sum().backward()
    learner.after_step(0.5)
    return [one.parts[1] for one in encoded]


@pytest.mark.usefixtures("tiny_teacher")
def test_targets_are_standardized_by_all_images_of_earlier_steps():
    learner = distill.build(student(), config())
    steps = [view(seed=seed)[1] for seed in range(4)]
    first, *_, last = [step(learner, seen)[0] for seen in steps]
    known = [learner.teacher(seen).double() for seen in steps]
    assert torch.equal(first, known[0].float())
    earlier = torch.cat(known[:3])
    variance = earlier.var(dim=0, correction=0)
    wanted = (known[3] - earlier.mean(dim=0)) / (variance + 1e-4 * variance.mean()).sqrt()
    torch.testing.assert_close(last, wanted.float(), rtol=1e-4, atol=1e-4)
    assert not last.requires_grad


@pytest.mark.usefixtures("tiny_teacher")
def test_statistics_do_not_depend_on_chunks_and_wait_for_the_step():
    whole, parts = (distill.build(student(), config()) for _ in range(2))
    seen = view(6)[1]
    step(whole, seen)
    targets = step(parts, seen[:2], seen[2:])
    assert torch.equal(torch.cat(targets), whole.teacher(seen))  # the second chunk knows nothing of the first
    torch.testing.assert_close(parts.standard.sums, whole.standard.sums, rtol=1e-6, atol=0)
    assert whole.standard.sums[0].unique().item() == 6
    assert not whole.standard.fresh.any()


@pytest.mark.usefixtures("tiny_teacher")
def test_a_look_in_eval_mode_leaves_the_statistics():
    learner = distill.build(student(), config()).eval()
    learner.encode(Seen([view()[1]], None, seed=0))
    assert not learner.standard.fresh.any()


def test_standard_of_silent_features_stays_finite():
    standard = Standard(3)
    standard.add(torch.tensor([[1.0, 5.0, 0.0], [3.0, 5.0, 0.0]]))
    standard.close()
    found = standard(torch.tensor([[2.0, 5.0, 0.1]]))
    assert found[0, :2].tolist() == pytest.approx([0, 0], abs=1e-6)
    assert found[0, 2].item() == pytest.approx(0.1 / np.sqrt(1e-4 / 3), rel=1e-5)


@pytest.mark.usefixtures("tiny_teacher")
def test_a_state_holds_the_statistics_and_only_the_digest_of_the_teacher():
    learner, other = (distill.build(student(), config()) for _ in range(2))
    step(learner, view()[1])
    state = learner.state_dict()
    told = {name for name in state if name.startswith("teacher.")}
    assert told == {"teacher._extra_state"}
    assert bytes(state["teacher._extra_state"].tolist()).hex() == weights_digest(learner.teacher.network)
    other.load_state_dict(state)
    seen = Seen([view(seed=1)[1]], None, seed=0)
    assert torch.equal(other.encode(seen).parts[1], learner.encode(seen).parts[1])
    with pytest.raises(RuntimeError, match=r"Missing key.*head\.weight"):
        other.load_state_dict({name: tensor for name, tensor in state.items() if name != "head.weight"})


@pytest.mark.usefixtures("tiny_teacher")
def test_a_teacher_of_other_weights_is_refused():
    learner, other = (distill.build(student(), config(teacher=name)) for name in ("tiny", "tinier"))
    digest = weights_digest(learner.teacher.network)[:12]
    with pytest.raises(ForeignFolderError, match=f"learned from tinier with weights {digest}") as error:
        other.load_state_dict(learner.state_dict())
    assert "new folder" in error.value.hint


@pytest.mark.usefixtures("tiny_teacher")
def test_a_state_that_still_holds_the_teacher_goes_on_with_it_and_with_no_other():
    learner, same, other = (distill.build(student(), config(teacher=name)) for name in ("tiny", "tiny", "tinier"))
    old = {f"teacher.network.{name}": tensor for name, tensor in learner.teacher.network.state_dict().items()}
    old |= {k: v for k, v in learner.state_dict().items() if k != "teacher._extra_state"}
    same.load_state_dict(old)
    assert torch.equal(same.teacher(view()[1]), learner.teacher(view()[1]))
    digest = weights_digest(learner.teacher.network)[:12]
    with pytest.raises(ForeignFolderError, match=f"learned from tinier with weights {digest}"):
        other.load_state_dict(old)


def test_checkpoints_are_as_small_as_without_a_teacher_and_go_on_bit_for_bit(tmp_path):
    learners = [distill.build(student(32), config(teacher="lite0@32")) for _ in range(2)]
    optimizers = [torch.optim.AdamW([p for p in one.parameters() if p.requires_grad]) for one in learners]
    seen = [view(edge=32, seed=seed)[1] for seed in range(4)]
    move(learners[0], optimizers[0], seen[:2])
    origin = Origin(config="x")
    save_checkpoint(tmp_path, learners[0], optimizers[0], mark=Mark(step=2), origin=origin)
    size = next(tmp_path.glob("*.safetensors")).stat().st_size
    trained = sum(p.nbytes for p in learners[0].parameters() if p.requires_grad)
    assert 3 * trained < size < 3 * trained + 100_000  # weights and two momenta; the teacher has 13.5 MB
    load_checkpoint(tmp_path, learners[1], optimizers[1], origin)
    for learner, optimizer in zip(learners, optimizers, strict=True):
        move(learner, optimizer, seen[2:])
    one, two = (learner.state_dict() for learner in learners)
    assert all(torch.equal(one[name], two[name]) for name in one)


def move(learner, optimizer, views):
    """A step on each of the views."""
    for seen in views:
        optimizer.zero_grad()
        step(learner, seen)
        optimizer.step()


@pytest.mark.usefixtures("tiny_teacher")
def test_learner_predicts_from_one_view():
    learner = distill.build(student(), config())
    seen = view()[1]
    encoded = learner.encode(Seen([seen], None, seed=0))
    predictions, targets = learner.project(encoded.parts)
    assert torch.equal(encoded.features, learner.backbone(seen))
    assert torch.equal(predictions, learner.head(encoded.features))
    assert predictions.shape == targets.shape == (5, 7)
    assert len(distill.views(config())) == 1
    assert not learner.coupled


def test_what_cannot_teach_is_refused():
    with pytest.raises(UsageError, match="color-texture"):
        distill.build(student(), config(teacher="color-texture"))
    with pytest.raises(UnknownNameError, match="lite1"):
        distill.build(student(), config(teacher="lite1"))
    with pytest.raises(UsageError, match="2 augmentation presets"):
        config(augmentation=("natural", "natural"))
