"""What the README tells people to type works as it stands there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
LOADS, TRAINS, ADDS_AN_OP = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_ten_lines_train_a_model_that_finds_the_modes(tmp_path, monkeypatch):
    from tinygen.data import eight_gaussians
    from tinygen.metrics import mode_coverage

    monkeypatch.chdir(tmp_path)
    names = {}
    exec(TRAINS, names)
    data = eight_gaussians()
    modes = mode_coverage(2 * names["model"].sample(1000, names["rng"]), data.means, data.std)
    assert (tmp_path / "samples.png").exists() and modes.found == 8 and modes.within > 0.95


def test_a_checkpoint_gives_its_model_without_the_demo(tmp_path, monkeypatch):
    from demos.runner import main

    out = tmp_path / "out" / "ddpm_8gaussians"
    assert main(["ddpm_8gaussians", "--quick", "--steps", "5", "--out", str(out)]) == 0
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    program = LOADS + "assert points.shape == (64, 2) and abs(points).max() < 100"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_op_that_is_added_passes_the_checker_with_the_words_shown(tmp_path):
    (tmp_path / "my_ops.py").write_text(ADDS_AN_OP)
    command = [sys.executable, "-m", "tinygen.gradcheck", str(tmp_path / "my_ops.py")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip() in README, done.stdout + done.stderr


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)]+)\)", README))))
def test_every_link_leads_somewhere(target):
    assert (Path(__file__).parents[1] / target).exists()


def test_every_demo_is_linked_from_the_learning_path_that_the_readme_leads_to():
    from demos.catalogue import catalogue

    root = Path(__file__).parents[1]
    page = (root / "demos" / "README.md").read_text(encoding="utf-8")
    entries = {entry.name for entry in catalogue(root / "demos")}
    assert "(demos/README.md)" in README and set(re.findall(r"\[(\w+)\]\(\1\.py\)", page)) == entries
    pictures = re.findall(r'src="([^"]+)"', page)
    assert pictures and all((root / "demos" / picture).exists() for picture in pictures)
