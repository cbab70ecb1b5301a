import hashlib
from importlib import resources

import numpy as np
import pytest

import tinygen
from tinygen import ops
from tinygen.data import digits
from tinygen.errors import InputError
from tinygen.metrics import classifier as module
from tinygen.metrics import digit_classifier
from tinygen.metrics.train_classifier import accuracy, deform, main, save
from tinygen.random import Generator


def test_the_shipped_weights_know_993_of_the_1000_held_out_digits():
    assert accuracy(digit_classifier(), digits().held_out) == pytest.approx(0.993, abs=0.0011)  # rounding may turn one


def test_an_image_has_the_same_features_in_any_batch():
    images = digits().held_out.images[:7]
    together, _ = digit_classifier().embed(images)
    apart, _ = digit_classifier().embed(images, batch=2)
    np.testing.assert_allclose(together, apart, atol=1e-4)


def test_probabilities_are_those_of_the_logits_and_logits_are_linear_in_the_features():
    images, net = digits().held_out.images[:5], digit_classifier()
    features, probabilities = net.embed(images)
    logits = net(images).numpy()
    np.testing.assert_allclose(logits, features @ net.output.weight.numpy() + net.output.bias.numpy(), atol=1e-4)
    np.testing.assert_allclose(probabilities, ops.softmax(logits), atol=1e-5)


def test_features_are_differentiable_in_the_image_and_the_weights_are_frozen():
    x = tinygen.tensor(digits().held_out.images[:2], requires_grad=True)
    ops.sum(digit_classifier().features(x)).backward()
    assert np.all(np.abs(x.grad).max((1, 2, 3)) > 0)
    assert all(p.grad is None and not p.requires_grad for p in digit_classifier().parameters())


@pytest.mark.parametrize("damage", ["a bit flipped", "cut short", "gone"])
def test_damaged_weights_are_told_before_they_are_parsed(damage, tmp_path, monkeypatch):
    contents = bytearray((resources.files("tinygen.metrics") / module.FILE).read_bytes())
    contents[len(contents) // 2] ^= damage == "a bit flipped"
    if damage != "gone":
        (tmp_path / module.FILE).write_bytes(contents[: -1 if damage == "cut short" else None])
    monkeypatch.setattr(resources, "files", lambda package: tmp_path)
    monkeypatch.setattr(module.np, "load", lambda *a, **k: pytest.fail("parsed"))
    with pytest.raises(InputError, match="cannot be read" if damage == "gone" else "is damaged"):
        digit_classifier.__wrapped__()


@pytest.mark.parametrize(
    "images, message",
    [
        (np.zeros((2, 28, 28)), r"\(n, 28, 28, 1\), not \(2, 28, 28\)"),
        (np.zeros((2, 14, 14, 1)), r"not \(2, 14, 14, 1\)"),
        (np.full((1, 28, 28, 1), -1.0), "from -1 to -1"),
        (np.full((1, 28, 28, 1), np.nan), "intensities from 0 to 1"),
    ],
)
def test_images_that_it_does_not_know_are_refused(images, message):
    with pytest.raises(InputError, match=message):
        digit_classifier().embed(images)


def test_the_command_trains_a_classifier_and_the_seed_decides_which(tmp_path, capsys):
    written = []
    for name, seed in [("a", 7), ("b", 7), ("c", 8)]:
        assert main(["--steps", "25", "--seed", str(seed), "--out", str(tmp_path / f"{name}.npz")]) == 0
        written.append(hashlib.sha256((tmp_path / f"{name}.npz").read_bytes()).hexdigest())
        told = capsys.readouterr().out
        assert written[-1] in told and float(told.split("accuracy: ")[1].split("%")[0]) > 60
    assert written[0] == written[1] != written[2]


def test_weights_that_cannot_be_written_are_told(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["--steps", "1", "--out", str(tmp_path / "file" / "weights.npz")]) == 2
    assert "Cannot write" in capsys.readouterr().err


def test_saving_rounds_the_classifier_to_what_the_file_holds(tmp_path):
    net = module.DigitClassifier(Generator(0))
    save(net, tmp_path / "weights.npz")
    with np.load(tmp_path / "weights.npz", allow_pickle=False) as file:
        for name, array in net.state_dict().items():
            assert file[name].dtype == np.float16
            np.testing.assert_array_equal(array, file[name])


def test_deforming_by_nothing_changes_nothing():
    images = digits().train.images[:3]
    np.testing.assert_allclose(deform(images, Generator(0), linear=1e-6, shift=1e-6, bend=0), images, atol=1e-4)


def test_each_image_is_deformed_in_a_way_of_its_own_that_the_seed_decides():
    images = np.repeat(digits().train.images[:1], 3, axis=0)
    a, b, c = (deform(images, Generator(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert a.shape == images.shape and a.dtype == np.float32 and 0 <= a.min() and a.max() <= 1
    assert np.abs(a[0] - a[1]).max() > 0.3 and np.abs(a - c).max() > 0.3
    assert 0.5 < a.sum() / images.sum() < 2
