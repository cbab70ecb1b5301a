import numpy as np
import pytest

from tinygen.data import checkerboard
from tinygen.random import Generator


class Edge(Generator):
    """Draws nothing but the greatest number below one, or zero."""

    def __init__(self, number):
        super().__init__(0)
        self.number = np.float32(number)

    def uniform(self, shape=(), *_, **__):
        return np.full(shape, self.number)


@pytest.mark.parametrize("number", [0, 1 - 2**-24])
def test_rounding_never_takes_a_sample_out_of_its_square(number):
    board = checkerboard()
    assert np.isfinite(board.log_prob(board.sample(1000, Edge(number)))).all()


def test_the_lower_left_square_is_filled_its_neighbours_are_not_and_nothing_is_outside():
    inside = [[-4, -4], [-3, -3], [-1, -1], [-1, 3], [3.9, 3.9]]
    outside = [[-3, -1], [-1, -3], [4, 4], [5, 5], [-5, -5], [np.nan, 0], [np.inf, 0]]
    assert np.all(checkerboard().log_prob(inside) == -np.log(32))
    assert np.all(checkerboard().log_prob(outside) == -np.inf)
