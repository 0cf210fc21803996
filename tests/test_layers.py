"""A layer of an encoder by products of int8, held to the same layer by float64."""

import pytest

pytest.importorskip("numpy")
pytest.importorskip("numkong")

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from soulkeep.embedders.layers import Linear

APART = (0, 3)
SIZES = st.integers(1, 70)


@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(0, 40),
    height=st.integers(4, 200),
    widths=st.lists(SIZES, min_size=1, max_size=3),
    middle=st.sampled_from([0.0, 40.0]),
    is_fine=st.booleans(),
)
def test_a_layer_is_off_by_half_a_step_of_each_input_at_most(
    seed: int, count: int, height: int, widths: list[int], middle: float, *, is_fine: bool
) -> None:
    random = np.random.default_rng(seed)
    matrices = [random.integers(-127, 128, (height, width), np.int8) for width in widths]
    scale, bias = random.random((2, 1, sum(widths)), np.float32)
    rows = random.standard_normal((count, height), np.float32) + np.float32(middle)
    rows[:, APART] *= 1_000
    layer = Linear.of(matrices, scale, bias[0], apart=APART, is_fine=is_fine)

    out = layer.apply(rows, np.empty((count, sum(widths)), np.float32))

    matrix = np.hstack(matrices).astype(float) * scale
    others = np.delete(rows.astype(float), APART, axis=1)
    # What is apart counts as zero among the others.
    spread = np.maximum(others, 0).max(axis=1, initial=0) - np.minimum(others, 0).min(axis=1, initial=0)
    steps = spread / 255 / (254 if is_fine else 1)
    most = steps[:, None] / 2 * np.abs(np.delete(matrix, APART, axis=0)).sum(axis=0)
    # A float of 32 bits holds seven digits of what is added up.
    most += 1e-5 * np.abs(rows).astype(float) @ np.abs(matrix) + 1e-5
    assert (np.abs(out - (rows.astype(float) @ matrix + bias)) <= most).all()


def test_rows_of_one_value_are_exact_and_none_depends_on_the_others() -> None:
    random = np.random.default_rng(3)
    matrix = random.integers(-127, 128, (64, 24), np.int8)
    layer = Linear.of([matrix], np.ones((1, 24), np.float32), np.zeros(24, np.float32))
    rows = random.standard_normal((9, 64), np.float32)
    rows[4], rows[7] = 2.5, 0

    together = layer.apply(rows, np.empty((9, 24), np.float32))

    assert (together[4] == 2.5 * matrix.sum(axis=0, dtype=float)).all()
    assert (together[7] == 0).all()
    for row, expected in zip(rows, together, strict=True):
        assert (layer.apply(row[None], np.empty((1, 24), np.float32)) == expected).all()
