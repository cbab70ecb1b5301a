"""The chapters on inverse CDFs, Gaussian mixtures and networks of pixels, run the short way."""

import json

import numpy as np
import pytest
from PIL import Image

from demos.runner import main

CHAPTERS = {
    "inverse_cdf": {"learned.png", "normals.png", "sampling.gif"},
    "gmm": {"density.png", "em.gif", "order.png"},
    "bayes_nets": {"generative_or_discriminative.png", "growing.gif", "mixture.png", "samples.png", "trees.png"},
}


@pytest.mark.parametrize("name, pictures", CHAPTERS.items(), ids=CHAPTERS)
def test_a_short_run_draws_measures_and_gives_its_samples_again_from_the_checkpoint(name, pictures, tmp_path):
    assert main([name, "--quick", "--out", str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.iterdir() if path.suffix in (".png", ".gif")} == pictures
    for picture in pictures:
        with Image.open(tmp_path / picture) as image:
            image.verify()
    metrics = json.loads((tmp_path / "metrics.json").read_text())["metrics"]
    assert len(metrics) >= 7
    assert np.all(np.isfinite([value for metric in metrics.values() for value in metric["values"]]))
    assert main([name, "--out", str(tmp_path), "--resume", "--sample", "12"]) == 0
    with np.load(tmp_path / "samples.npz") as file:
        assert len(file["samples"]) == 12 and np.all(np.isfinite(file["samples"]))
