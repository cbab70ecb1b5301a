"""What all tests of kernels need."""

import numba
import pytest


@pytest.fixture(autouse=True)
def leave_the_number_of_threads_as_it_was():
    before = numba.get_num_threads()
    yield
    numba.set_num_threads(before)
