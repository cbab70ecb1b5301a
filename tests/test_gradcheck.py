"""The gradient checker: it passes what is right, catches what is wrong, and can be used on a reader's own ops."""

import subprocess
import sys

import numpy as np
import pytest

import tinygen
from tinygen import ops
from tinygen.errors import GradientError, InputError
from tinygen.finite_differences import Kink

CUBE = """
import tinygen
from tinygen.domains import arrays, real

cube = tinygen.op("cube", forward=lambda x: x**3, vjp=lambda g, x: g * {factor} * x**2, inputs=arrays(real))
"""


def run(tmp_path, source, *arguments):
    file = tmp_path / "my_ops.py"
    file.write_text(source)
    command = [sys.executable, "-W", "error", "-m", "tinygen.gradcheck", str(file), *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_gradcheck_accepts_right_gradients_of_any_function():
    tinygen.gradcheck(lambda x, y: ops.exp(x) * ops.sin(y), np.ones((2, 1)), np.ones(3), order=3)


def test_gradcheck_names_the_input_whose_gradient_is_wrong():
    detached = lambda x, y: x * y + ops.exp(tinygen.stop_gradient(y))
    with pytest.raises(GradientError, match=r"the gradient by input 1 is .* finite differences give"):
        tinygen.gradcheck(detached, np.ones(2), np.ones(2))


def test_a_wrong_second_derivative_is_caught_although_the_first_is_right():
    once = lambda x: x * x * 0.5 + tinygen.stop_gradient(x) * x - x * tinygen.stop_gradient(x)
    tinygen.gradcheck(once, np.array([1.5]), order=1)
    half = lambda x: tinygen.stop_gradient(x) * x * 2 - tinygen.stop_gradient(x) * tinygen.stop_gradient(x)
    with pytest.raises(GradientError):
        tinygen.gradcheck(half, np.array([1.5]), order=2)


def test_lists_of_whole_numbers_are_differentiated_too():
    with pytest.raises(GradientError):
        tinygen.gradcheck(lambda x: tinygen.stop_gradient(x) * 2, [1, 2])
    tinygen.gradcheck(lambda x, i: x[i], [1, 2, 3], np.array([0, 2]))


@pytest.mark.parametrize("function, x", [(lambda i: i * 1.0, np.arange(2)), (lambda x: x > 0, [1.0, 2.0])])
def test_a_check_that_would_check_nothing_is_refused(function, x):
    with pytest.raises(InputError, match="nothing to check"):
        tinygen.gradcheck(function, x)


def test_a_kink_is_recognised_and_not_tolerated():
    with pytest.raises(Kink):
        tinygen.gradcheck(lambda x: ops.relu(x - 1e-5), np.zeros(1))


def test_a_students_op_of_a_few_lines_is_checked_by_the_command(tmp_path):
    right = run(tmp_path, CUBE.format(factor=3))
    assert right.returncode == 0 and "cube: first and second derivatives agree" in right.stdout, right.stderr
    wrong = run(tmp_path, CUBE.format(factor=2))
    assert wrong.returncode == 1 and "cube: WRONG." in wrong.stdout and "finite differences give" in wrong.stdout


def test_the_command_explains_bad_input(tmp_path):
    empty = run(tmp_path, "x = 1")
    assert empty.returncode == 2 and "registers no op" in empty.stderr
    command = [sys.executable, "-m", "tinygen.gradcheck", str(tmp_path / "missing.py")]
    missing = subprocess.run(command, capture_output=True, text=True)
    assert missing.returncode == 2 and "is not a file" in missing.stderr
