"""Matrix products on a chosen device against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from curate.distances import mmd
from embeddings.device import compute_device, device_product, full_float32, product
from embeddings.errors import UsageError
from embeddings.moments import Moments
from embeddings.neighbors import Engine, nearest


def sides(dtype):
    rng = np.random.default_rng(0)
    return rng.normal(size=(70, 33)).astype(dtype), rng.normal(size=(50, 33)).astype(dtype)


@pytest.fixture(autouse=True)
def _no_setting(monkeypatch):
    monkeypatch.delenv("CURATE_COMPUTE", raising=False)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 2e-5), (np.float64, 1e-13)])
def test_tensors_give_what_numpy_gives(dtype, tolerance):
    x, y = sides(dtype)
    found = device_product(x, y, "cpu")
    assert found.dtype == dtype
    np.testing.assert_allclose(found, x.astype(np.float64) @ y.T.astype(np.float64), atol=tolerance)
    np.testing.assert_array_equal(product(x, y), x @ y.T)
    np.testing.assert_allclose(device_product(x.T, x.T, "cpu"), x.T @ x, atol=10 * tolerance)


def test_the_cpu_is_the_default_and_another_device_is_chosen_by_name(monkeypatch):
    assert compute_device() == "cpu"
    for name in ("", "cpu"):
        monkeypatch.setenv("CURATE_COMPUTE", name)
        assert compute_device() == "cpu"


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "cuda:x"])
def test_a_device_that_is_not_there_is_refused(monkeypatch, name):
    monkeypatch.setenv("CURATE_COMPUTE", name)
    with pytest.raises(UsageError, match=f"CURATE_COMPUTE names '{name}'") as error:
        product(*sides(np.float32))
    assert "Unset CURATE_COMPUTE" in error.value.hint


def test_tf32_is_off_meanwhile_and_the_setting_comes_back():
    import torch

    products = torch.backends.cuda.matmul
    before, products.fp32_precision = products.fp32_precision, "tf32"
    try:
        with full_float32():
            assert products.fp32_precision == "ieee"
        assert products.fp32_precision == "tf32"
    finally:
        products.fp32_precision = before


def test_kernel_sums_run_on_tensors(monkeypatch):
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(90, 12)), rng.normal(size=(80, 12)) + 0.3
    plain = {kernel: mmd(x, y, kernel=kernel) for kernel in ("poly3", "gaussian")}
    used = []

    def on_tensors(a, b):
        used.append(a.dtype)
        return device_product(a, b, "cpu")

    monkeypatch.setattr("curate.distances._kernels.product", on_tensors)
    for kernel, estimate in plain.items():
        assert mmd(x, y, kernel=kernel).value == pytest.approx(estimate.value, rel=1e-4)
    assert used


@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-4), (np.float64, 1e-12)])
def test_cuda_agrees_with_the_cpu(monkeypatch, dtype, tolerance):
    x, y = sides(dtype)
    monkeypatch.setenv("CURATE_COMPUTE", "cuda")
    np.testing.assert_allclose(product(x, y), x @ y.T, atol=tolerance)
    on_device = mmd(x, y).value
    monkeypatch.delenv("CURATE_COMPUTE")
    assert on_device == pytest.approx(mmd(x, y).value, rel=1e-3)


TENSORS = "cpu:0"  # the CPU, by way of tensors


@pytest.mark.gpu
def test_cuda_finds_the_same_neighbors_and_moments(monkeypatch):
    rng = np.random.default_rng(3)
    base, folds = rng.normal(size=(3000, 64)).astype(np.float32), rng.integers(0, 10, 3000)
    plain = nearest(base, base, 5, exclude_self=True), Moments.from_vectors(base, folds)
    monkeypatch.setenv("CURATE_COMPUTE", "cuda")
    np.testing.assert_array_equal(nearest(base, base, 5, exclude_self=True)[1], plain[0][1])
    np.testing.assert_allclose(Moments.from_vectors(base, folds).scatter, plain[1].scatter, rtol=1e-9, atol=1e-9)


def test_neighbors_found_on_tensors_are_those_of_brute_force():
    rng = np.random.default_rng(1)
    base = (rng.normal(size=(400, 12)) + 50).astype(np.float32)
    for queries, exclude_self in ((base, True), (base[:40] + 0.1, False)):
        plain = nearest(queries, base, 5, exclude_self=exclude_self)
        engine = Engine(device=TENSORS, query_rows=64, base_rows=100)
        found = nearest(queries, base, 5, exclude_self=exclude_self, engine=engine)
        for ours, theirs in zip(found, plain, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_moments_added_up_on_tensors_are_the_same(monkeypatch):
    rng = np.random.default_rng(2)
    for d in (6, 7):  # the layout of a triangle differs between even and odd
        vectors, folds = rng.normal(size=(300, d)) + 100, rng.integers(0, 10, 300)
        monkeypatch.delenv("CURATE_COMPUTE", raising=False)
        plain = Moments.from_vectors(vectors, folds)
        monkeypatch.setenv("CURATE_COMPUTE", TENSORS)
        found = Moments.from_vectors(vectors, folds)
        np.testing.assert_allclose(found.scatter, plain.scatter, rtol=1e-11, atol=1e-11)
        np.testing.assert_allclose(found.mean, plain.mean, rtol=1e-14)
