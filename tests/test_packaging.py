"""What a person installs: the right files, a light import, and peace with the other distribution named `kernels`."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = SETTINGS["tool"]["setuptools"]["packages"]


def python(code, *path, cwd):
    """What `code` prints, run in a fresh interpreter with `path` at the front of sys.path and site-packages behind."""
    code = f"import sys; sys.path[:0] = {[str(p) for p in path]}\n{code}"
    ran = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def sources(folder):
    """Every Python file below `folder`, links not followed, relative to it."""
    return [p.relative_to(folder) for p in folder.rglob("*.py") if p.is_file() and not p.is_symlink()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built without the network from a copy of the tree, and unpacked."""
    tmp = tmp_path_factory.mktemp("wheel")
    copy = tmp / "copy"
    copy.mkdir()
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("tinygen", "kernels", "demos"):
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    build = "from setuptools import build_meta; build_meta.build_wheel('..')"
    ran = subprocess.run([sys.executable, "-c", build], cwd=copy, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    (file,) = tmp.glob("*.whl")
    zipfile.ZipFile(file).extractall(tmp / "installed")
    return tmp / "installed"


@pytest.fixture
def other_kernels(tmp_path):
    """A stand-in for the other distribution: a regular package `kernels` in a folder of its own."""
    package = tmp_path / "site" / "kernels"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("who = 'the other one'\n")
    return package.parent


def test_every_package_of_the_tree_is_declared():
    found = {"tinygen", "tinygen.kernels"}                              # kernels/ has no file of its own, only folders
    found |= {".".join(("tinygen", *p.parent.parts)) for p in sources(ROOT / "tinygen") if "kernels" not in p.parts}
    found |= {".".join(("tinygen.kernels", *p.parent.parts)) for p in sources(ROOT / "kernels")}
    assert sorted(found) == PACKAGES


def test_the_wheel_holds_the_library_and_its_kernels_and_nothing_else(wheel):
    expected = {Path("tinygen", p) for p in sources(ROOT / "tinygen") if "kernels" not in p.parts}
    expected |= {Path("tinygen", "kernels", p) for p in sources(ROOT / "kernels")}
    assert set(sources(wheel)) == expected
    assert {p.name for p in wheel.iterdir()} == {"tinygen", f"tinygen-{SETTINGS['project']['version']}.dist-info"}


def test_the_data_files_are_in_the_wheel(wheel):
    data = {p.name for p in (ROOT / "tinygen" / "data").iterdir() if p.suffix in {".npz", ".txt"}}
    assert data == {p.name for p in (wheel / "tinygen" / "data").iterdir() if p.suffix != ".py"}


@pytest.mark.parametrize("first", ["ours first", "theirs first"])
@pytest.mark.parametrize("form", ["clone", "wheel"])
def test_another_distribution_named_kernels_and_ours_leave_each_other_alone(
    form, first, other_kernels, request, tmp_path
):
    ours = ROOT if form == "clone" else request.getfixturevalue("wheel")
    path = [ours, other_kernels] if first == "ours first" else [other_kernels, ours]
    for imports in (["kernels", "tinygen.kernels.cpu"], ["tinygen.kernels.cpu", "kernels"]):
        code = "\n".join(f"import {name}" for name in imports)
        code += "\nprint(kernels.who, tinygen.kernels.cpu.__file__, kernels.__file__, sep='\\n')"
        who, our_file, their_file = python(code, *path, cwd=tmp_path).splitlines()
        assert who == "the other one" and Path(their_file).is_relative_to(other_kernels)
        assert Path(our_file).resolve().is_relative_to(Path(ours).resolve())


def test_in_a_clone_the_link_leads_to_the_kernels_folder():
    if not (ROOT / "tinygen" / "kernels").is_dir():
        pytest.skip("this checkout has no symbolic links: install with `pip install .`, without -e")
    assert (ROOT / "tinygen" / "kernels").resolve() == ROOT / "kernels"
    assert os.readlink(ROOT / "tinygen" / "kernels").replace("\\", "/") == "../kernels"
    assert not (ROOT / "kernels" / "__init__.py").exists()              # it would hide the other distribution


def test_importing_tinygen_imports_numpy_and_nothing_heavier(tmp_path):
    code = "import tinygen; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = set(python(code, ROOT, cwd=tmp_path).split())
    dependencies = {re.match(r"[\w-]+", d)[0] for d in SETTINGS["project"]["dependencies"]} | {"cupy", "hypothesis"}
    assert {"tinygen", "numpy"} <= loaded and not loaded & (dependencies - {"numpy"})


def test_no_module_of_tinygen_imports_another_array_library_at_its_top():
    heavy = r"^(import|from) (numba|scipy|matplotlib|cupy|tqdm|PIL|torch|hypothesis)\b"
    for path in sources(ROOT / "tinygen"):
        if "kernels" not in path.parts:
            assert not re.findall(heavy, (ROOT / "tinygen" / path).read_text(), re.MULTILINE), path
