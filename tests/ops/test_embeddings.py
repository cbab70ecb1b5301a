import numpy as np
import pytest

import tinygen
from tinygen import ops
from tinygen.errors import DtypeError, InputError, ShapeError

TABLE = np.arange(6.0).reshape(3, 2)


def test_embedding_takes_rows_and_each_use_adds_to_its_gradient():
    table = tinygen.tensor(TABLE, requires_grad=True)
    y = ops.embedding(table, [[0, 2], [2, 2]])
    np.testing.assert_array_equal(y.numpy(), TABLE[[[0, 2], [2, 2]]])
    y.sum().backward()
    np.testing.assert_array_equal(table.grad, [[1, 1], [0, 0], [3, 3]])


def test_embedding_takes_no_indices_or_a_single_one():
    assert ops.embedding(TABLE, np.zeros((0, 3), int)).shape == (0, 3, 2)
    np.testing.assert_array_equal(ops.embedding(TABLE, 1), TABLE[1])


@pytest.mark.parametrize(
    "indices, kind, rule",
    [
        ([0, 3], InputError, "indices run from 0 to 3, but there are 3 rows: 0 to 2"),
        ([-1], InputError, "indices run from -1 to -1"),
        (np.array([1.0]), DtypeError, "indices must be integers or booleans, not float64"),
        ([True, False], DtypeError, "indices must be integers, not bool"),
    ],
)
def test_indices_outside_the_table_are_told(indices, kind, rule):
    with pytest.raises(kind, match=r"embedding\(float64 \(3, 2\), .*" + rule):
        ops.embedding(TABLE, indices)


def test_a_table_has_two_axes():
    with pytest.raises(ShapeError, match="two axes"):
        ops.embedding(TABLE[0], [0])
