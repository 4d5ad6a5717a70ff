"""Agreement by value with the packages that people use for these measures; the command is in CONTRIBUTING.md."""

import numpy as np
import pytest

from curate.distances import c2st, frechet_full, kid, prdc, sliced
from curate.diversity import vendi
from curate.evaluation._scores import calibration_error, macro_f1
from embeddings.encoders.torchvision_import import import_torchvision
from embeddings.moments import Moments, fold_of
from embeddings.neighbors import nearest
from embeddings.store import EmbeddingStore

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]


def peer(module):
    """A peer's module, or a skipped test; some only want torchvision to be there."""
    import_torchvision()
    return pytest.importorskip(module, reason="pip install -r benchmarks/peers/requirements.txt")


@pytest.fixture(scope="module")
def samples():
    rng = np.random.default_rng(0)
    return rng.normal(size=(1200, 64)), 1.2 * rng.normal(size=(1000, 64)) + 0.1


def mean_and_covariance(x):
    return x.mean(axis=0), np.cov(x, rowvar=False)


def test_frechet_is_that_of_pytorch_fid(samples):
    theirs = peer("pytorch_fid.fid_score").calculate_frechet_distance
    expected = theirs(*mean_and_covariance(samples[0]), *mean_and_covariance(samples[1]))
    assert frechet_full(*samples) == pytest.approx(expected, rel=1e-9)
    moments = [Moments.from_vectors(x, np.arange(len(x)) % 10) for x in samples]
    assert frechet_full(*moments) == pytest.approx(expected, rel=1e-9)


def test_frechet_is_that_of_torch_fidelity(samples):
    fid = peer("torch_fidelity.metric_fid")
    import torch

    statistics = [fid.fid_features_to_statistics(torch.from_numpy(x)) for x in samples]
    found = fid.fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert frechet_full(*samples) == pytest.approx(found, rel=1e-9)


def test_frechet_is_that_of_torchmetrics(samples):
    fid = peer("torchmetrics.image.fid")
    import torch

    network = torch.nn.Identity()
    network.num_features = 64
    metric = fid.FrechetInceptionDistance(feature=network).set_dtype(torch.float64)
    for real, x in zip((True, False), samples, strict=True):
        metric.update(torch.from_numpy(x), real=real)
    assert frechet_full(*samples) == pytest.approx(float(metric.compute()), rel=1e-6)  # they answer in float32


def test_kid_is_that_of_torch_fidelity(samples):
    theirs = peer("torch_fidelity.metric_kid")
    import torch

    settings = {"kid_subsets": 20, "kid_subset_size": 300, "rng_seed": 2020, "verbose": False}
    found = theirs.kid_features_to_metric(*(torch.from_numpy(x) for x in samples), **settings)
    ours = kid(*samples, subsets=20, size=300)
    assert ours.mean.value == pytest.approx(found["kernel_inception_distance_mean"], rel=1e-9)
    assert ours.spread.value == pytest.approx(found["kernel_inception_distance_std"], rel=1e-9)


def test_precision_and_recall_are_those_of_torch_fidelity(samples):
    theirs = peer("torch_fidelity.metric_prc")
    import torch

    found = theirs.prc_features_to_metric(*(torch.from_numpy(x) for x in samples), prc_neighborhood=3, verbose=False)
    ours = prdc(samples[1], samples[0], k=3)  # their first set is the generated one
    assert ours.precision.value == pytest.approx(float(found["precision"]), abs=1e-6)  # float32 means
    assert ours.recall.value == pytest.approx(float(found["recall"]), abs=1e-6)


def test_counts_are_those_of_prdc(samples):
    expected = peer("prdc").compute_prdc(*samples, nearest_k=5)
    ours = prdc(*samples, k=5)
    for name in ("precision", "recall", "density", "coverage"):
        assert getattr(ours, name).value == pytest.approx(float(expected[name]), abs=1e-12), name


def test_sliced_wasserstein_is_that_of_pot():
    ot = peer("ot")
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2000, 8)), 1.5 * rng.normal(size=(2000, 8)) + 1
    found = ot.sliced_wasserstein_distance(x, y, n_projections=4_000, seed=0) ** 2
    # Theirs draws other directions and is not debiased; both matter little here.
    assert sliced(x, y, projections=2_048).value == pytest.approx(found, rel=0.02)


def test_in_one_dimension_it_is_exact_transport():
    ot = peer("ot")
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(800, 1)), 3 + 2 * rng.normal(size=(800, 1))
    weights = np.full(800, 1 / 800)
    exact = ot.emd2(weights, weights, ot.dist(x, y))
    ours = sliced(x, y, projections=1)
    assert ours.value == pytest.approx(exact, abs=0.05 * ours.se + 0.02)


def test_neighbors_are_those_of_scikit_learn(samples):
    theirs = peer("sklearn.neighbors").NearestNeighbors(n_neighbors=7, algorithm="brute").fit(samples[0])
    distances, rows = theirs.kneighbors(samples[1])
    found, where = nearest(samples[1], samples[0], 7)
    np.testing.assert_array_equal(where, rows)
    np.testing.assert_allclose(np.sqrt(found), distances, atol=1e-6)


def test_auc_of_the_classifier_is_that_of_scikit_learn(samples):
    """Of its scores to the digit; of linear discriminant analysis without shrinkage nearly."""
    metrics, discriminant = peer("sklearn.metrics"), peer("sklearn.discriminant_analysis")
    target, pool = (EmbeddingStore.from_vectors(x, keys=keys(x)) for x in samples)
    folds, ours = [fold_of(store.rows()) for store in (target, pool)], c2st(target, pool)
    aucs, others, pairs = [], [], []
    for fold in range(10):
        kept, held = ([x[of(f, fold)] for x, f in zip(samples, folds, strict=True)] for of in (np.not_equal, np.equal))
        model = discriminant.LinearDiscriminantAnalysis(priors=[0.5, 0.5])
        model.fit(np.concatenate(kept), np.repeat([1, 0], [len(x) for x in kept]))
        labels = np.repeat([1, 0], [len(x) for x in held])
        scored = [s[f == fold] for s, f in zip((ours.target_scores, ours.pool_scores), folds, strict=True)]
        aucs.append(metrics.roc_auc_score(labels, np.concatenate(scored)))
        others.append(metrics.roc_auc_score(labels, model.decision_function(np.concatenate(held))))
        pairs.append(np.prod([len(x) for x in held]))
    assert ours.auc.value == pytest.approx(np.average(aucs, weights=pairs), abs=1e-9)
    assert ours.auc.value == pytest.approx(np.average(others, weights=pairs), abs=0.01)


def keys(x):
    """In row order, and no two sets' alike."""
    return [f"{len(x)}-{i:06d}" for i in range(len(x))]


@pytest.mark.parametrize("q", [1, 2])
def test_vendi_is_that_of_its_package(q):
    package = peer("vendi_score.vendi")
    x = np.random.default_rng(0).normal(size=(500, 32))
    assert vendi(x, q=q).value == pytest.approx(package.score_dual(x, q=q), rel=1e-9)


def test_scores_of_probabilities_are_those_of_torchmetrics():
    theirs = peer("torchmetrics.functional.classification")
    import torch

    rng = np.random.default_rng(0)
    for n_classes in (3, 10):
        probabilities, labels = rng.dirichlet(np.full(n_classes, 0.5), size=500), rng.integers(n_classes, size=500)
        said, truth, whole = torch.from_numpy(probabilities), torch.from_numpy(labels), np.ones((1, 500))
        ece = theirs.multiclass_calibration_error(said, truth, num_classes=n_classes, n_bins=15, norm="l1")
        assert calibration_error(probabilities, labels)(whole)[0] == pytest.approx(float(ece), abs=1e-6)
        f1 = theirs.multiclass_f1_score(said, truth, num_classes=n_classes, average="macro")
        assert macro_f1(probabilities.argmax(axis=1), labels)(whole)[0] == pytest.approx(float(f1), abs=1e-6)
