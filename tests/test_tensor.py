"""A Tensor behaves as NumPy users expect."""

import copy
import operator

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

import tinygen
from tinygen import ops
from tinygen.errors import DeviceError, DtypeError, GraphError, InputError, ShapeError, TinygenError


def test_tensor_copies():
    a = np.ones(3, np.float32)
    x = tinygen.tensor(a)
    a[0] = 5
    assert x.numpy()[0] == 1


@pytest.mark.parametrize("values", [1, 2.5, [1, 2], [[1.0], [2.0]], (1, 2)])
def test_lists_and_numbers_become_float32(values):
    assert tinygen.tensor(values).dtype == np.float32


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint8, bool])
def test_arrays_keep_their_dtype(dtype):
    assert tinygen.tensor(np.ones(2, dtype)).dtype == dtype


@pytest.mark.parametrize("bad", [np.ones(2, np.float16), np.ones(2, complex), "text", [[1, 2], [3]], None, {}])
def test_what_is_not_numbers_is_refused(bad):
    with pytest.raises(DtypeError, match="tensor: "):
        tinygen.tensor(bad)


def test_an_integer_leaf_is_refused_and_told_why():
    with pytest.raises(DtypeError, match="only floats have derivatives"):
        tinygen.tensor(np.arange(3), requires_grad=True)


@pytest.mark.parametrize("scalar", [2, 2.5, True, np.float64(2.5), np.float32(2.5), np.int64(2)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scalars_are_weak(scalar, dtype):
    x = tinygen.tensor(np.ones(2, dtype))
    for y in (x * scalar, scalar * x, x + scalar, scalar - x, x / scalar):
        assert y.dtype == dtype and isinstance(y, tinygen.Tensor)


@pytest.mark.parametrize("other", [np.float16, np.longdouble, complex, object, ">f8", "U1"])
def test_a_constant_of_an_unsupported_dtype_is_refused_and_does_not_widen(other):
    x, constant = tinygen.tensor(np.ones(2)), np.ones(2).astype(other)
    for call in (lambda: x * constant, lambda: constant * x, lambda: x.astype(other), lambda: tinygen.Tensor(constant)):
        with pytest.raises(DtypeError, match="float32, float64, integers or booleans"):
            call()


@pytest.mark.parametrize("other", ["3", b"3", {}, {1.0}, 1j, np.complex64(1), object(), None, [[1], [1, 2]]])
def test_an_operand_that_is_not_numbers_is_refused(other):
    x = tinygen.tensor([1.0, 2.0])
    for call in (lambda: x * other, lambda: other - x, lambda: x < other, lambda: ops.maximum(x, other)):
        with pytest.raises(DtypeError, match=r"test_tensor.py:\d+"):
            call()


def test_a_list_is_an_operand_like_the_tensor_it_would_make():
    x = tinygen.tensor([1.0, 2.0], requires_grad=True)
    assert (x * [3, 4]).tolist() == ([3, 4] * x).tolist() == [3.0, 8.0]
    for out in (ops.exp([1, 2]), ops.reshape([1, 2], (2, 1)), ops.transpose([[1.0, 2.0]]), ops.softmax([0, 1])):
        assert type(out) is np.ndarray and out.dtype == np.float32
    with pytest.raises(GraphError, match="would lose their gradients; use ops.stack"):
        tinygen.tensor([x.sum(), x.sum()])
    with pytest.raises(GraphError, match="multiply.*use ops.stack"):
        x * [x.sum(), x.sum()]


def test_parameters_are_weak_numbers_and_booleans_become_float32():
    x = tinygen.tensor([-1.0, 2.0])
    assert ops.leaky_relu(x, np.float64(0.1)).dtype == ops.elu(x, np.float64(2.0)).dtype == np.float32
    assert ops.exp(x > 0).dtype == ops.sqrt(tinygen.tensor(np.ones(2, np.int8))).dtype == np.float32
    with pytest.raises(DtypeError, match="leaky_relu: the result is float64, the operands are float32"):
        ops.leaky_relu(x, np.array(0.1))
    with pytest.raises(DtypeError, match="leaky_relu: the result is complex"):
        ops.leaky_relu(x, 1j)


def test_matrices_and_masked_arrays_are_taken_for_what_they_hold():
    x = tinygen.tensor(np.ones((1, 2)))
    for kind in (np.matrix, np.ma.MaskedArray):
        a = np.ones((1, 2)).view(kind)
        assert type((x * a).numpy()) is type(tinygen.tensor(a).numpy()) is np.ndarray


def test_bits_are_combined_as_in_numpy():
    for a, b in ((np.array([6, 3]), np.array([3, 8])), (np.array([True, False]), np.array([True, True]))):
        for name in ("and_", "or_", "xor"):
            function = getattr(operator, name)
            for got in (function(tinygen.tensor(a), b), function(a, tinygen.tensor(b))):
                np.testing.assert_array_equal(got.numpy(), function(a, b))
                assert got.dtype == a.dtype
        np.testing.assert_array_equal((~tinygen.tensor(a)).numpy(), ~a)
    with pytest.raises(DtypeError, match="bitwise_and"):
        tinygen.tensor([1.0]) & tinygen.tensor([1.0])


def test_plus_x_is_a_copy():
    x = tinygen.tensor([1.0])
    y = +x
    y += 1.0
    assert x.item() == 1.0


def test_methods_agree_with_numpys():
    a = np.random.default_rng(0).normal(size=(3, 4, 2))
    x = tinygen.tensor(a)
    calls = {
        "var": {"axis": (0, -1), "ddof": 1, "keepdims": True}, "std": {"axis": 1, "ddof": 1}, "mean": {"axis": 0},
        "argmax": {"axis": 1, "keepdims": True}, "argmin": {}, "cumprod": {"axis": 0}, "cumsum": {}, "ravel": {},
        "diagonal": {"offset": 1, "axis1": 2, "axis2": 0}, "transpose": {}, "flatten": {}, "prod": {"axis": 2},
        "take": {"indices": [1, 0], "axis": 1}, "repeat": {"repeats": 2, "axis": 0}, "min": {"axis": -1}, "round": {},
        "any": {}, "all": {"axis": 0}, "max": {"keepdims": True}, "sum": {"axis": 0},
    }  # fmt: skip
    for name, params in calls.items():
        np.testing.assert_allclose(getattr(x, name)(**params).numpy(), getattr(a, name)(**params), err_msg=name)
    np.testing.assert_array_equal(x.swapaxes(0, 2).numpy(), a.swapaxes(0, 2))
    for axes in ((), (2, 0, 1), ((1, 0, 2),)):
        np.testing.assert_array_equal(x.transpose(*axes).numpy(), a.transpose(*axes))
    with pytest.raises(InputError, match="axes don't match"):
        x.transpose(0)


repeated = lambda x: ops.broadcast_to(x, (2, 3))
WRITES = {
    "+= to repeated elements": (lambda x: repeated(x).__iadd__(1.0), "cannot be written to"),
    "an element of repeated ones": (lambda x: repeated(x).__setitem__(0, 1.0), "cannot be written to"),
    ".data of repeated elements": (lambda x: setattr(repeated(x), "data", np.ones((2, 3))), "copy it first"),
    "an index outside": (lambda x: x.__setitem__(5, 1.0), "index 5 is out of bounds"),
    "a wrong shape": (lambda x: x.__setitem__(0, [1.0, 2.0]), "sequence"),
    "text": (lambda x: x.__setitem__(0, "one"), "could not convert"),
    "None to .data": (lambda x: setattr(x, "data", [None] * 3), "cannot assign object"),
}


@pytest.mark.parametrize("write, rule", WRITES.values(), ids=WRITES.keys())
def test_a_write_that_cannot_be_is_explained_and_changes_nothing(write, rule):
    x = tinygen.tensor(np.zeros(3))
    with pytest.raises(TinygenError, match=rule):
        write(x)
    assert x.tolist() == [0, 0, 0] and x.version.tick == 0


def test_integers_do_not_widen_a_float():
    x, i = tinygen.tensor(np.ones(2, np.float32)), tinygen.tensor(np.array([1, 2]))
    assert (x * i).dtype == (i * x).dtype == (x + np.array([1, 2])).dtype == np.float32
    assert (i * 2).dtype == np.int64
    assert (i * 0.5).dtype == (i / i).dtype == ops.exp(i).dtype == np.float32
    assert i.astype(np.float64).dtype == np.float64


def test_an_array_on_the_left_hands_over():
    x = tinygen.tensor([1.0, 2.0], requires_grad=True)
    a = np.array([3.0, 4.0], np.float32)
    for y, expected in ((a + x, [4, 6]), (a * x, [3, 8]), (a - x, [2, 2]), (a / x, [3, 2])):
        assert isinstance(y, tinygen.Tensor) and y.requires_grad
        np.testing.assert_array_equal(y.numpy(), expected)
    assert isinstance(a < x, tinygen.Tensor)


@given(st.integers(0, 2**32 - 1))
def test_operators_agree_with_numpy(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.uniform(0.5, 2, (2, 3)), rng.uniform(0.5, 2, (2, 3))
    x, y = tinygen.tensor(a), tinygen.tensor(b)
    for name in ("add", "sub", "mul", "truediv", "pow", "floordiv", "mod", "lt", "le", "gt", "ge", "eq", "ne"):
        function = getattr(operator, name)
        for got in (function(x, y), function(x, b), function(a, y)):
            np.testing.assert_allclose(got.numpy(), function(a, b))
    np.testing.assert_array_equal((-x).numpy(), -a)
    np.testing.assert_array_equal(abs(-x).numpy(), a)
    np.testing.assert_array_equal((~(x > 1)).numpy(), ~(a > 1))


def test_data_is_always_an_array_also_for_0_d():
    x = tinygen.tensor(2.0, requires_grad=True)
    for y in (x, x * x, x + 1, ops.exp(x), x.sum(), x.reshape(1).sum()):
        assert type(y.numpy()) is np.ndarray and y.shape == ()
    (x * x).backward()
    assert type(x.grad) is np.ndarray and x.grad.shape == ()


def test_conversions():
    x = tinygen.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert len(x) == 2 and x.shape == (2, 2) and x.ndim == 2 and x.size == 4 and x.device == "cpu"
    assert tinygen.tensor(3.0).item() == 3.0 and float(tinygen.tensor(3.0)) == 3.0 and int(tinygen.tensor(3.0)) == 3
    assert [row.tolist() for row in x] == x.tolist()
    assert 4.0 in x and 5.0 not in x
    np.testing.assert_array_equal(np.asarray(x), x.numpy())
    np.testing.assert_array_equal(x.T.numpy(), x.numpy().T)
    assert f"{tinygen.tensor(1.5):.2f}" == "1.50"
    with pytest.raises(TypeError, match="no length"):
        len(tinygen.tensor(1.0))
    with pytest.raises(ValueError):
        bool(x)


def test_repr_shows_values_dtype_and_history():
    assert repr(tinygen.tensor([1.0, 2.0])) == "tensor([1., 2.])"
    assert repr(tinygen.tensor(np.ones(2), requires_grad=True)) == "tensor([1., 1.], dtype=float64, requires_grad=True)"
    assert "op=exp" in repr(ops.exp(tinygen.tensor([1.0], requires_grad=True)))
    assert repr(tinygen.Parameter([1.0])).startswith("parameter(")


def test_detach_and_views_share_memory_and_copy_does_not():
    x = tinygen.tensor(np.zeros(3))
    view, alone = x.detach(), x.copy()
    view[0] = 1.0
    assert x.numpy()[0] == 1.0 and alone.numpy()[0] == 0.0
    assert x.version is view.version is x.reshape(3, 1).version


def test_data_assignment_copies_in_and_checks():
    x = tinygen.tensor(np.zeros(3))
    own = x.numpy()
    x.data = [1.0, 2.0, 3.0]
    assert x.numpy() is own and own[2] == 3.0
    with pytest.raises(ShapeError, match=r"shape \(2,\) to a Tensor of shape \(3,\)"):
        x.data = np.zeros(2)
    with pytest.raises(DtypeError, match="without losing"):
        tinygen.tensor(np.arange(3)).data = np.ones(3)


def test_grad_assignment_is_checked():
    x = tinygen.tensor([1.0], requires_grad=True)
    with pytest.raises(ShapeError, match="expected None or a plain array"):
        x.grad = np.zeros(2, np.float32)
    with pytest.raises(GraphError, match="only a leaf"):
        (x * 2).grad = np.zeros(1, np.float32)


def test_deepcopy_copies_leaves_and_refuses_graphs():
    p = tinygen.Parameter([1.0, 2.0])
    q = copy.deepcopy(p)
    assert type(q) is tinygen.Parameter and q.requires_grad and not np.shares_memory(q.numpy(), p.numpy())
    with pytest.raises(GraphError, match="detach"):
        copy.deepcopy(p * 2)


def test_a_device_that_is_not_there_is_explained_in_a_sentence():
    with pytest.raises(DeviceError, match='"cpu" and "cuda"'):
        tinygen.tensor([1.0]).to("tpu")
    assert tinygen.tensor([1.0], device="cpu").to("cpu").device == "cpu"


def test_tensors_hash_by_identity_so_they_can_be_kept_in_sets():
    x, y = tinygen.tensor([1.0]), tinygen.tensor([1.0])
    assert len({x, y}) == 2
