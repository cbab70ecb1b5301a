"""The chapters on flows and energies run from beginning to end, and write what they say."""

import json

import pytest

from demos.runner import main


@pytest.mark.parametrize(
    ("name", "metric", "pictures"),
    [
        ("flows_2d", "-log p, pinwheel, spline", {"densities.png", "grids_pinwheel.png", "grids_pinwheel.gif"}),
        ("ebm", "-log p, Z by the grid", {"density.png", "samples.png", "langevin.gif"}),
    ],
)
def test_a_chapter_trains_measures_and_draws(tmp_path, name, metric, pictures):
    assert main([name, "--quick", "--steps", "2", "--out", str(tmp_path)]) == 0
    assert metric in json.loads((tmp_path / "metrics.json").read_text())["metrics"]
    assert pictures <= {path.name for path in tmp_path.iterdir()}
