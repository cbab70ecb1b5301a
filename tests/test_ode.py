"""Truths about the solvers of differential equations, where the solution is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import expm

import tinygen
from tinygen import ode, ops
from tinygen.errors import InputError
from tinygen.ode import SolverError, dormand_prince, rk4

SPIN = np.array([[-0.3, 2.0], [-2.0, -0.1]])


def spiral(t, y):
    return y @ SPIN


def test_the_error_of_runge_kutta_falls_with_the_fourth_power_of_the_steps():
    y, exact = np.array([[1.0, -0.5]]), np.array([[1.0, -0.5]]) @ expm(2 * SPIN)
    errors = [np.abs(rk4(spiral, y, 0.0, 2.0, n) - exact).max() for n in (20, 40, 80)]
    np.testing.assert_allclose(np.log2(np.divide(errors[:-1], errors[1:])), 4, atol=0.15)


def test_both_solvers_are_exact_for_velocities_that_are_cubic_in_time():
    rate = lambda t, y: np.array([4 * t**3 - 3 * t**2 + 2 * t - 1])
    exact = 2.0**4 - 2.0**3 + 2.0**2 - 2.0
    assert rk4(rate, np.zeros(1), 0.0, 2.0, 1)[0] == pytest.approx(exact, abs=1e-12)
    assert dormand_prince(rate, np.zeros(1), 0.0, 2.0).y[0] == pytest.approx(exact, abs=1e-12)


def test_the_tableau_is_consistent_with_orders_five_and_four():
    a = np.array([[*row, *[0] * (7 - len(row))] for row in ode.A])
    c, b = np.array(ode.C), a[-1]
    np.testing.assert_allclose(a.sum(1), c, atol=1e-12)
    for k in range(5):
        assert b @ c**k == pytest.approx(1 / (k + 1))
        assert (b - ode.E) @ c**k == pytest.approx(1 / (k + 1)) or k == 4
    assert abs(np.array(ode.E) @ c**4) > 1e-4  # the two differ from fifth order on


@settings(max_examples=15)
@given(st.floats(1e-10, 1e-3), st.floats(-3, 3), st.floats(0.1, 5))
def test_adaptive_steps_keep_the_tolerance_both_ways_in_time(tolerance, start, length):
    y = np.array([[1.0, 0.7]])
    there = dormand_prince(spiral, y, start, start + length, tolerance, tolerance)
    np.testing.assert_allclose(there.y, y @ expm(length * SPIN), atol=50 * tolerance)
    back = dormand_prince(spiral, there.y, start + length, start, tolerance, tolerance)
    np.testing.assert_allclose(back.y, y, atol=200 * tolerance)


def test_a_tighter_tolerance_takes_more_evaluations_which_are_counted():
    calls, taken = [], []
    for tolerance in (1e-3, 1e-6, 1e-9):
        calls.clear()
        counted = lambda t, y: calls.append(t) or spiral(t, y)
        found = dormand_prince(counted, np.ones((1, 2)), 0.0, 3.0, tolerance, tolerance)
        assert found.evaluations == len(calls) >= 6 * found.steps
        taken.append(len(calls))
    assert taken[0] < taken[1] < taken[2]


def test_gradients_flow_through_the_steps_of_either_solver():
    field, y = lambda t, y: ops.sin(3 * y) + t, np.array([0.2, -0.4, 1.0])
    tinygen.gradcheck(lambda y: rk4(field, y, 0.0, 1.0, 3), y)
    tinygen.gradcheck(lambda y: dormand_prince(field, y, 0.0, 1.0, 1e-2, 1e-2).y, y)


def test_nothing_to_follow_takes_no_step():
    assert dormand_prince(spiral, np.ones((1, 2)), 1.0, 1.0).steps == 0


def test_a_solution_that_blows_up_is_told_with_its_time():
    with np.errstate(over="ignore", invalid="ignore"), pytest.raises(SolverError, match="at t = (0.99|1)"):
        dormand_prince(lambda t, y: y**2, np.ones(1), 0.0, 2.0)


def test_wrong_settings_are_explained():
    with pytest.raises(InputError, match="steps must be at least 1"):
        rk4(spiral, np.ones((1, 2)), 0, 1, 0)
    with pytest.raises(InputError, match="nor both 0"):
        dormand_prince(spiral, np.ones((1, 2)), 0, 1, 0.0, 0.0)
