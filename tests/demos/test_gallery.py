"""The page of the learning path and the gallery, of small demos written for the purpose and of those there are."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from demos import gallery, learning_path
from demos.catalogue import PLANNED, catalogue
from demos.runner import main
from tinygen.errors import InputError

DRAWS = '''"""A number & a picture: is 1 < 2?

Words of the chapter.

    y = x & 1
"""
from demos.runner import Demo, Run
from tinygen.files import write_text

DEMO = Demo(number=2, data="numbers", minutes=0.1, steps=10, quick_steps=2, datasets=("some", "full"))


def main(run: Run) -> None:
    run.metric("error | bias", 0.25 + run.seed, reference=0.2, reference_name="<floor>", at_most=1.0)
    run.metric("other", 7.0)
    if run.draws:
        for name in ("plane.gif", "samples.png"):
            write_text(run.path(name), "drawn in " + str(run.steps) + " steps")
'''
FAILS = '''"""A demo without data."""
from demos.runner import Demo
from tinygen.errors import InputError

DEMO = Demo(number=1, data="nothing", minutes=1, steps=1, quick_steps=1)


def main(run) -> None:
    raise InputError("no data")
'''


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of demos, and beside it the working directory."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "chapters"
    folder.mkdir()
    (folder / "draws.py").write_text(DRAWS)
    (folder / "fails.py").write_text(FAILS)
    return folder


def all_files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"}


def test_all_writes_a_row_with_picture_data_metric_bar_figure_and_minutes(folder):
    main(["--all", "--seeds", "2"], folder)
    row = next(line for line in (folder / "README.md").read_text().splitlines() if line.startswith("| 2 |"))
    assert "[draws](draws.py)<br>A number & a picture" in row and "pictures/draws_samples.png" in row
    assert "Data: numbers.<br>Minutes a seed: 0.0 (of the processor: 0.0); 2 seeds, " in row
    assert row.endswith("| error \\| bias: 0.75 ± 0.71 (bar <= 1; met by 1 of 2) |")
    assert (folder / "pictures" / "draws_plane.gif").read_text() == "drawn in 10 steps"
    assert json.loads((folder / "results" / "draws.json").read_text())["seeds"] == [0, 1]


def test_a_demo_that_was_not_run_keeps_its_figures_and_one_never_run_says_so(folder):
    main(["--all"], folder)
    before = (folder / "README.md").read_text()
    assert "| 1 | [fails](fails.py)<br>A demo without data.<br>Data: nothing. |  | not measured yet |" in before
    (folder / "draws.py").write_text(DRAWS.replace("run.metric", "run.no_such_metric"))
    assert learning_path.update(catalogue(folder), []) == [] and (folder / "README.md").read_text() == before


@pytest.mark.parametrize(
    "options", [["--quick"], ["--steps", "3"], ["--quick", "--steps", "10"], ["--budget", "1", "--steps", "9"]]
)
def test_quick_and_short_runs_change_no_figure_and_no_picture(folder, options):
    main(["--all", "--out", "whole"], folder)
    before = all_files(folder)
    main(["--all", *options, "--out", "short"], folder)
    assert all_files(folder) == before and Path("short/gallery/index.html").exists()


def test_quick_runs_write_into_their_own_folder_alone(folder):
    before = all_files(folder)
    main(["--all", "--quick", "--out", "o"], folder)
    assert all_files(folder) == before and {path.name for path in Path().iterdir()} == {"chapters", "o"}
    assert "its figures mean little" in Path("o/gallery/draws.html").read_text()


def test_other_data_than_the_first_changes_no_figure(folder):
    assert main(["draws", "--data", "full"], folder) == 0
    assert learning_path.update(catalogue(folder), [Path("out")]) == []
    assert main(["draws"], folder) == 0
    assert learning_path.update(catalogue(folder), [Path("out/draws")]) == ["draws"]


def test_a_resumed_run_is_shown_without_the_minutes_that_nobody_knows(folder):
    main(["--all"], folder)
    (entry,) = [entry for entry in catalogue(folder) if entry.name == "draws"]
    report, pictures = learning_path.in_folder(Path("out/draws"), entry)
    assert learning_path.keep(entry, learning_path.Result({**report, "steps_resumed": [4]}, pictures))
    assert "not known, as it was resumed; 1 seed" in learning_path.page([entry])


def test_figures_that_are_damaged_are_named(folder):
    main(["--all"], folder)
    (folder / "results" / "draws.json").write_text("{")
    with pytest.raises(InputError, match=r"draws\.json is damaged"):
        learning_path.update(catalogue(folder), [])


class Page(HTMLParser):
    """Collects text and links, and sees to it that what is opened is closed."""

    VOID = ("meta", "link", "img")

    def __init__(self, path):
        super().__init__()
        self.open, self.text, self.links, self.tags = [], "", [], set()
        self.feed(path.read_text(encoding="utf-8"))
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.links += [value for name, value in attributes if name in ("href", "src")]
        self.open += [tag] if tag not in self.VOID else []

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def check(folder):
    """Every page of a gallery is well formed, needs no script, and every link leads to a file of the same folder."""
    for path in folder.glob("*.html"):
        page = Page(path)
        assert "script" not in page.tags
        assert page.links and all((folder / link).resolve().is_relative_to(folder.resolve()) for link in page.links)
        assert all((folder / link).is_file() for link in page.links)


def test_the_gallery_shows_idea_command_metrics_pictures_and_source_in_one_folder(folder):
    main(["--all", "--seeds", "2"], folder)
    check(Path("out/gallery"))
    page, index = Page(Path("out/gallery/draws.html")), Page(Path("out/gallery/index.html"))
    assert "A number & a picture: is 1 < 2?" in page.text and "    y = x & 1" in page.text
    assert "python -m demos draws --seeds 2" in page.text and "0.2 <floor>" in page.text and "1 of 2" in page.text
    assert [link for link in page.links if link.startswith("pictures/")] == [
        "pictures/draws_plane.gif",
        "pictures/draws_samples.png",
    ]
    assert "2. draws" in index.text and "fails" not in index.text and "draws.source.html" in page.links
    assert Page(Path("out/gallery/draws.source.html")).text.count("write_text") == 2


# -- of the repository -----------------------------------------------------------------------------------------------

DEMOS = Path(__file__).parents[2] / "demos"
ENTRIES = catalogue(DEMOS)


def test_the_page_of_the_repository_is_what_its_figures_say():
    advice = "run `python -m demos.learning_path FOLDER`, FOLDER being where a complete run of the demo has written"
    assert (DEMOS / "README.md").read_text(encoding="utf-8") == learning_path.page(ENTRIES), advice


def test_the_page_has_each_number_once_from_1_to_30():
    numbers = [int(number) for number in re.findall(r"^\| (\d+) \|", learning_path.page(ENTRIES), re.MULTILINE)]
    assert numbers == list(range(1, 31))
    assert all(PLANNED.get(entry.demo.number, [entry.name])[0] == entry.name for entry in ENTRIES)


def test_the_gallery_of_the_repository_is_whole(tmp_path):
    shown = [(entry, learning_path.last(entry)) for entry in ENTRIES]
    gallery.write(tmp_path, [(entry, result) for entry, result in shown if result])
    check(tmp_path)
    assert all(learning_path.representative(entry, result) for entry, result in shown if result)
