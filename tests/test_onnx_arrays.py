"""Arrays are read from an ONNX file where they lie, and a file that is none says so."""

import contextlib
from pathlib import Path

import pytest

pytest.importorskip("numpy")

from hypothesis import given
from hypothesis import strategies as st

from soulkeep.embedders.layers import OnnxError, read_arrays


def varint(number: int) -> bytes:
    more, low = number >> 7, number & 127
    return bytes([low | 128]) + varint(more) if more else bytes([low])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def tensor(name: str, kind: int, shape: list[int], data: bytes) -> bytes:
    return (
        b"".join(field(1, size) for size in shape)
        + field(2, kind)
        + field(8, name.encode())
        + field(9, data)
    )


def model(*tensors: bytes) -> bytes:
    graph = field(1, b"a node") + b"".join(field(5, one) for one in tensors) + field(2, b"graph")
    fixed = varint(20 << 3 | 5) + b"abcd" + varint(21 << 3 | 1) + b"abcdefgh"
    return field(1, 8) + fixed + field(7, graph) + field(8, b"opset")


def test_arrays_have_their_names_shapes_and_values(tmp_path: Path) -> None:
    packed = field(1, varint(2) + varint(300)) + field(2, 3) + field(8, b"packed") + field(9, bytes(600))
    file = tmp_path / "model.onnx"
    file.write_bytes(
        model(
            tensor("bytes", 3, [2, 3], bytes([1, 2, 3, 253, 254, 255])),
            tensor("floats", 1, [2], b"\0\0\x80\x3f\0\0\0\xc0"),
            tensor("one", 7, [], (7).to_bytes(8, "little")),
            packed,
        )
    )

    arrays = read_arrays(file)

    assert arrays["bytes"].tolist() == [[1, 2, 3], [-3, -2, -1]]
    assert arrays["floats"].tolist() == [1.0, -2.0]
    assert arrays["one"].tolist() == 7
    assert arrays["packed"].shape == (2, 300)
    assert not arrays["bytes"].flags.owndata
    assert all(array.flags.aligned for array in arrays.values())


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (model(tensor("text", 8, [1], b"abc")), "'text' has the type 8, which is not read"),
        (model(tensor("huge", 3, [0, 2**70], b"")), "'huge' has 0 bytes for the shape"),
        (model(tensor("short", 1, [2], b"abcd")), r"'short' has 4 bytes for the shape \[2\]"),
        (model(tensor("bytes", 3, [1], b"a"))[:-20], "ends behind its message"),
        (b"\x3a\x05\x0b", "ends behind its message"),
        (b"\x0b", "a field of kind 3, which the format does not have"),
        (b"\x08\xff", "ends within a field"),
        (b"", "is empty"),
        (model(tensor("bytes", 3, [1], b"a")).replace(b"bytes", b"\xff\xff\xff\xff\xff"), "no text"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, content: bytes, problem: str) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(content)

    with pytest.raises(OnnxError, match=problem):
        read_arrays(file)


@given(st.binary(max_size=200))
def test_any_bytes_are_arrays_or_an_error(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(content)

    with contextlib.suppress(OnnxError):
        assert isinstance(read_arrays(file), dict)
