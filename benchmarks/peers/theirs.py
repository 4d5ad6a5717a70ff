"""The peers' side: their own functions, on features. Runs in the peers' environment."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
from worker import serve


def _import_torchvision() -> None:
    """pytorch-fid and torch-fidelity need it only to be there."""
    path = Path(__file__).parents[2] / "embeddings" / "encoders" / "torchvision_import.py"
    spec = importlib.util.spec_from_file_location("torchvision_import", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.import_torchvision()


_import_torchvision()
from prdc import compute_prdc  # noqa: E402
from pytorch_fid.fid_score import calculate_frechet_distance  # noqa: E402
from torch_fidelity.metric_kid import kid_features_to_metric  # noqa: E402


def frechet_of_moments(mean_x, cov_x, mean_y, cov_y):
    return {"frechet": float(calculate_frechet_distance(mean_x, cov_x, mean_y, cov_y))}


def frechet_of_features(x, y):
    moments = [part for v in (x, y) for part in (v.mean(axis=0), np.cov(v, rowvar=False))]
    return frechet_of_moments(*moments)


def statistics(x):
    mean, covariance = np.mean(x, axis=0), np.cov(x, rowvar=False)
    return {"trace": float(np.trace(covariance)), "mean": float(mean.mean())}


def kid(x, y):
    import torch

    settings = {"kid_subsets": 100, "kid_subset_size": 1000, "verbose": False}
    found = kid_features_to_metric(torch.from_numpy(x), torch.from_numpy(y), **settings)
    return {"kid": float(found["kernel_inception_distance_mean"])}


def prdc(x, y):
    return {name: float(value) for name, value in compute_prdc(x, y, 5).items()}


if __name__ == "__main__":
    serve({job.__name__: job for job in (frechet_of_moments, frechet_of_features, statistics, kid, prdc)})
