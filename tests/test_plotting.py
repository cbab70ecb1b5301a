import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tinygen.data import eight_gaussians
from tinygen.errors import InputError
from tinygen.files import OutputError
from tinygen.plotting import (
    animate,
    bars,
    classes,
    curve,
    ellipses,
    grid,
    heat_map,
    histogram,
    images,
    mesh,
    overlay,
    running_mean,
    save,
    scatter,
    segments,
    strands,
    trajectories,
)
from tinygen.random import Generator

EXTENT = (-4.5, 4.5, -4.5, 4.5)
CLOUDS = Generator(0).normal((3, 200, 2))
MAPS = histogram(CLOUDS, EXTENT, 16)
PICTURES = Generator(1).uniform((3, 10, 8, 6))

SPREAD = np.array([[0.6, 0.3], [0.3, 0.4]])
GAUSSIANS = CLOUDS[:, :5], np.broadcast_to(SPREAD, (3, 5, 2, 2))

PANELS = {
    "scatter": scatter(CLOUDS[0], "points"),
    "heat map": heat_map(MAPS[0], EXTENT, "density", label="p"),
    "curve": curve(np.linspace(2, 1, 50), "loss", smooth=5, log="y", levels={"entropy": 0.9}),
    "curves": curve({"train": np.arange(1, 9), "held out": np.arange(2, 10)}, x=np.arange(8) + 1, log="xy"),
    "trajectories": trajectories(CLOUDS, "paths"),
    "mesh": mesh(CLOUDS.reshape(3, 20, 10, 2), CLOUDS.reshape(3, 10, 20, 2), "a bent grid"),
    "strands": strands(CLOUDS[:, :, 0], "paths in time", colour_at=0),
    "bars": overlay(bars(np.sin(np.arange(40)) ** 2, np.arange(41), "histogram"), curve(np.linspace(0, 1, 40))),
    "ellipses": ellipses(*GAUSSIANS, "components", weights=np.full((3, 5), 0.2)),
    "segments": segments(CLOUDS[0].reshape(100, 2, 2), np.arange(100), "edges", label="nats"),
    "classes": classes(CLOUDS[0], np.arange(200) % 10, "digits"),
    "images": images(PICTURES[0], "images", columns=5, rows=["x", "y"]),
    "colour images": images(np.stack([PICTURES[0]] * 3, axis=-1)),
    "image map": images(PICTURES, "map", columns=2, extent=EXTENT),
    "overlay": overlay(heat_map(MAPS[0], EXTENT, "both", colours="Greys"), trajectories(CLOUDS, extent=EXTENT)),
}


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), np.int64)


@pytest.mark.parametrize("panel", PANELS.values(), ids=PANELS)
def test_a_picture_is_a_png_of_its_size_with_something_drawn_on_it(panel, tmp_path):
    path = tmp_path / "new" / "picture.png"
    save(path, panel, dpi=50)
    with Image.open(path) as image:
        assert image.format == "PNG"
        width, height = image.size
        assert abs(width - 170 * panel.width) <= 1 and abs(height - 170 * panel.height) <= 1
        image.verify()
    inner = pixels(path)[height // 4 : height // 2 + 15, width // 3 : width // 3 + 50]
    assert len(np.unique(inner.reshape(-1, 3), axis=0)) > 2
    assert [file.name for file in path.parent.iterdir()] == ["picture.png"]


def test_panels_stand_side_by_side_or_in_rows(tmp_path):
    panel = scatter(CLOUDS[0])
    save(tmp_path / "row.png", panel, panel, panel, dpi=50)
    save(tmp_path / "rows.png", panel, panel, panel, columns=2, dpi=50)
    assert pixels(tmp_path / "row.png").shape[:2] == (170, 510)
    assert pixels(tmp_path / "rows.png").shape[:2] == (340, 340)


def test_the_same_arguments_give_the_same_file_whatever_style_the_user_has_set(tmp_path):
    import matplotlib

    save(tmp_path / "a.png", *PANELS.values(), dpi=40)
    with matplotlib.rc_context({"axes.facecolor": "black", "font.size": 20}):
        before = dict(matplotlib.rcParams)
        save(tmp_path / "b.png", *PANELS.values(), dpi=40)
        assert dict(matplotlib.rcParams) == before
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_drawing_never_imports_pyplot(tmp_path):
    code = (
        "import sys; from tinygen import plotting; assert 'matplotlib' not in sys.modules;"
        f"plotting.save({str(tmp_path / 'x.png')!r}, plotting.curve([1, 2]), dpi=20);"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_animation_has_its_frames_its_pace_and_one_palette(tmp_path):
    path = tmp_path / "moving.gif"
    animate(path, scatter(CLOUDS), heat_map(MAPS, EXTENT, "m"), captions=["a", "b", "c"], fps=10, hold=1, dpi=50)
    with Image.open(path) as gif:
        assert (gif.format, gif.n_frames, gif.info["loop"]) == ("GIF", 3, 0)
        assert gif.size == (340, 187)
        durations, frames = [], []
        for t in range(3):
            gif.seek(t)
            durations.append(gif.info["duration"])
            frames.append(np.asarray(gif.convert("RGB")))
    assert durations == [100, 100, 1100]
    assert all((frame[0, 0] == 255).all() for frame in frames)  # paper stays white
    assert len(np.unique(np.concatenate(frames).reshape(-1, 3), axis=0)) <= 64
    assert not np.array_equal(frames[0], frames[1])


def test_a_still_of_a_moving_panel_shows_its_end(tmp_path):
    save(tmp_path / "moving.png", heat_map(MAPS, EXTENT, top=1), dpi=40)
    save(tmp_path / "end.png", heat_map(MAPS[2], EXTENT, top=1), dpi=40)
    save(tmp_path / "start.png", heat_map(MAPS[0], EXTENT, top=1), dpi=40)
    assert np.array_equal(pixels(tmp_path / "moving.png"), pixels(tmp_path / "end.png"))
    assert not np.array_equal(pixels(tmp_path / "moving.png"), pixels(tmp_path / "start.png"))


def test_an_animation_ends_on_the_still(tmp_path):
    moving = overlay(heat_map(MAPS, EXTENT, "map", colours="Greys"), scatter(CLOUDS, extent=EXTENT))
    covered = overlay(heat_map(MAPS, EXTENT, label="p"), trajectories(CLOUDS, extent=EXTENT))
    panels = [moving, covered, PANELS["curve"]]
    save(tmp_path / "still.png", *panels, caption="end", dpi=60)
    animate(tmp_path / "moving.gif", *panels, captions=["", "middle", "end"], dpi=60)
    with Image.open(tmp_path / "moving.gif") as gif:
        gif.seek(2)
        last = np.asarray(gif.convert("RGB"), np.int64)
    assert np.abs(last - pixels(tmp_path / "still.png")).mean() < 2  # of 255: they differ by the palette alone


def test_a_heat_map_has_its_rows_upwards_and_its_columns_to_the_right(tmp_path):
    density = np.zeros((2, 2))
    density[0, 1] = 1  # low y, high x
    save(tmp_path / "map.png", heat_map(density, (0, 1, 0, 1)), dpi=60)
    light = pixels(tmp_path / "map.png").sum(-1)[20:160, 40:190]
    rows, columns = np.where((light > 600) & (light < 740))  # magma's last colour; white paper sums to 765
    assert rows.mean() > 70 and columns.mean() > 75


def test_an_ellipse_is_where_a_gaussian_has_one_and_two_deviations():
    from matplotlib.figure import Figure

    ax = Figure().add_subplot()
    ellipses([[1, 2]], [SPREAD]).draw(ax)(0)
    for line, deviations in zip(ax.lines, (1, 2)):
        away = np.stack(line.get_data(), axis=1) - [1, 2]
        squared = np.einsum("ni,ij,nj->n", away, np.linalg.inv(SPREAD), away)
        np.testing.assert_allclose(squared, deviations**2)


def test_images_stand_in_rows_from_the_top_left_as_ink_on_paper(tmp_path):
    black_and_white = np.zeros((5, 28, 28))
    black_and_white[[1, 5 - 1]] = 1  # the second of the first row, and the middle of the second, which is not full
    save(tmp_path / "five.png", images(black_and_white, columns=3), dpi=100)
    x = pixels(tmp_path / "five.png").sum(-1)
    height, width = x.shape
    centre = lambda row, column: x[int(height * (2 * row + 1) / 4), int(width * (2 * column + 1) / 6)]
    assert [centre(0, column) for column in range(3)] == [765, 0, 765]
    assert [centre(1, column) for column in range(3)] == [765, 0, 765]
    third = x[height // 4, int(width / 3) - 8 : int(width / 3) + 8]  # paper, the ground between two images, ink
    assert third[0] == 765 and third[-1] == 0 and np.any((third > 600) & (third < 700))


def test_colours_are_drawn_as_they_are_and_clipped(tmp_path):
    red = np.zeros((1, 4, 4, 3))
    red[..., 0] = 7
    save(tmp_path / "red.png", images(red), dpi=50)
    x = pixels(tmp_path / "red.png")
    assert x[x.shape[0] // 2, x.shape[1] // 2].tolist() == [255, 0, 0]


def test_images_move_in_an_animation(tmp_path):
    frames = np.zeros((2, 1, 4, 4))
    frames[1] = 1
    animate(tmp_path / "blink.gif", images(frames), dpi=50)
    with Image.open(tmp_path / "blink.gif") as gif:
        seen = []
        for t in range(2):
            gif.seek(t)
            x = np.asarray(gif.convert("L"), np.int64)
            seen.append(x[x.shape[0] // 2, x.shape[1] // 2])
    assert seen == [255, 0]


def test_an_overlay_has_the_labels_of_its_first_panel_and_the_extent_of_its_last():
    from matplotlib.figure import Figure

    ax = Figure().add_subplot()
    codes = classes(CLOUDS[0], np.arange(200) % 10, extent=EXTENT, xlabel="a", ylabel="b")
    overlay(codes, scatter(CLOUDS[0], "title", (0, 1, 2, 3))).draw(ax)
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == ("a", "b", "title")
    assert (*ax.get_xlim(), *ax.get_ylim()) == (0, 1, 2, 3)


def test_rows_of_panels_are_as_high_as_they_need(tmp_path):
    strip = images(PICTURES[0], columns=10)
    save(tmp_path / "rows.png", scatter(CLOUDS[0]), strip, columns=1, dpi=50)
    assert strip.height < 0.5
    assert pixels(tmp_path / "rows.png").shape[0] == pytest.approx(170 * (1 + strip.height), abs=2)


@pytest.mark.parametrize("write", [save, animate])
@pytest.mark.parametrize("failure", ["drawing", "disk"])
def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(write, failure, tmp_path, monkeypatch):
    path = tmp_path / "picture.gif"
    path.write_bytes(b"old")
    panel = scatter(CLOUDS)

    def full(*args, **options):
        raise OSError(28, "No space left on device")

    if failure == "disk":
        monkeypatch.setattr("os.replace", full)
    else:
        monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="No space left"):
        write(path, panel, dpi=30)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_written_is_named_in_one_paragraph(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="Cannot write .*file/picture.png: .*Choose a folder") as caught:
        save(tmp_path / "file" / "picture.png", scatter(CLOUDS))
    assert "\n" not in str(caught.value)


@given(st.integers(1, 30), st.integers(0, 200))
def test_a_histogram_integrates_to_the_share_of_points_inside(cells, n):
    points = 3 * Generator(n).normal((n, 2), np.float64)
    inside = np.mean(np.abs(points).max(1) < 4.5) if n else 0
    assert histogram(points, EXTENT, cells).sum() * (9 / cells) ** 2 == pytest.approx(inside)


def test_histogram_and_grid_agree_with_the_density_and_with_each_other():
    data = eight_gaussians()
    exact = np.exp(data.log_prob(grid(EXTENT, 30)))
    drawn = histogram(data.sample(200_000, Generator(0)), EXTENT, 30)
    assert np.abs(exact - drawn).max() < 0.1 * exact.max()
    centres = grid((0, 2, 0, 20), 2)
    np.testing.assert_allclose(centres[0, 1], [1.5, 5])  # row 0 is low y, column 1 high x
    assert histogram(centres[0, 1][None], (0, 2, 0, 20), 2).tolist() == [[0, 0.1], [0, 0]]
    assert histogram([[0.5, 0.5], [np.nan, 0.5], [np.inf, 9], [1, 1]], (0, 1, 0, 1), 1) == 0.25


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=30), st.integers(1, 40))
def test_a_running_mean_is_the_mean_over_the_window(values, width):
    smooth = running_mean(values, width)
    for i, mean in enumerate(smooth):
        window = values[max(i - (width - 1) // 2, 0) : i + width // 2 + 1]
        assert mean == pytest.approx(np.mean(window), abs=1e-9)


def test_a_running_mean_leaves_out_what_is_not_finite():
    np.testing.assert_array_equal(running_mean([1, np.nan, 3, np.inf, np.nan, np.nan], 3), [1, 2, 3, 3, np.nan, np.nan])


def test_empty_constant_and_broken_data_still_draw(tmp_path):
    path = tmp_path / "edge.png"
    save(
        path,
        scatter(np.zeros((0, 2))),
        scatter(np.full((3, 2), np.nan)),
        scatter(np.ones((5, 2))),
        heat_map(np.zeros((4, 4)), EXTENT),
        heat_map(np.full((4, 4), np.nan), EXTENT),
        curve([1.0]),
        curve([np.nan, np.nan, np.inf], smooth=2, log="y"),
        curve(np.zeros(5), log="y"),
        trajectories(np.zeros((2, 0, 2))),
        classes(np.zeros((0, 2)), np.zeros(0, int)),
        images(np.full((1, 2, 2), np.nan)),
        images(np.ones((1, 1, 1))),
        columns=3,
        dpi=30,
    )
    assert path.exists()


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda path: scatter(np.zeros((5, 3))), r"\(n, 2\) or \(frames, n, 2\), not \(5, 3\)"),
        (lambda path: heat_map(np.zeros(4), EXTENT), r"not \(4,\)"),
        (lambda path: heat_map(np.zeros((4, 4)), (1, 0, 0, 1)), "left < right"),
        (lambda path: heat_map(np.zeros((4, 4)), EXTENT, top=[1, 2]), "one number or 1"),
        (lambda path: heat_map(MAPS, EXTENT, top=[1, 2, 3], label="p"), "one top for all frames"),
        (lambda path: curve([1, 2], x=[1, 2, 3]), "one length"),
        (lambda path: curve([1, 2], log="z"), "log must be"),
        (lambda path: curve({}), "one length"),
        (lambda path: curve([1, 2], smooth=0), "smooth over must be at least 1"),
        (lambda path: trajectories(np.zeros((1, 5, 2))), "two steps or more"),
        (lambda path: mesh(np.zeros((2, 5, 3)), np.zeros((2, 5, 2))), "rows must be points of the plane"),
        (lambda path: mesh(np.zeros((3, 2, 5, 2)), np.zeros((2, 5, 2))), "3 frames of rows and 1 of columns"),
        (lambda path: strands(np.zeros((3, 5)), x=np.arange(4)), "3 steps have 4 places"),
        (lambda path: bars([1, 2], [0, 1]), r"2 bars need one edge more.*not \(2,\)"),
        (lambda path: ellipses(np.zeros((5, 2)), np.eye(2)), r"not \(5, 2\) and \(2, 2\)"),
        (lambda path: segments(np.zeros((3, 2, 2)), [1]), r"not \(3, 2, 2\) and \(1,\)"),
        (lambda path: classes(np.zeros((2, 2)), [1]), "one digit from 0 to 9 for each of 2 points"),
        (lambda path: classes(np.zeros((2, 2)), [1, 10]), "one digit from 0 to 9"),
        (lambda path: images(np.zeros((8, 6))), r"must have shape \(n, H, W\).*not \(8, 6\)"),
        (lambda path: images(np.zeros((0, 8, 6))), "none of them 0"),
        (lambda path: images(PICTURES[0], columns=0), "columns must be at least 1"),
        (lambda path: images(PICTURES[0], columns=5, rows=["x"]), "2 rows have 1 labels"),
        (lambda path: save(path), "at least one"),
        (lambda path: save(path, scatter(CLOUDS), scatter(CLOUDS[:2])), r"\[2, 3\]"),
        (lambda path: animate(path, scatter(CLOUDS), captions=["a"]), "3 frames have 1 captions"),
        (lambda path: animate(path, scatter(CLOUDS), fps=0), "fps must be positive"),
    ],
)
def test_bad_input_is_named(call, message, tmp_path):
    with pytest.raises(InputError, match=message):
        call(tmp_path / "x.png")
    assert not list(tmp_path.iterdir())
