"""What encoders are made of: layers, their arithmetic on rows of float32, and the arrays of ONNX files.

Only what is needed of the format of ONNX is read:
ModelProto.graph (7), GraphProto.initializer (5) and of TensorProto dims (1), data_type (2), name (8) and
raw_data (9), as onnx.proto3 numbers them.
"""

import math
import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numkong as nk
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_STEPS = np.float32(255)
_MIDDLE = np.float32(128)
_FINE = np.float32(254)
_EPSILON = np.float32(1e-12)


@dataclass(frozen=True, slots=True)
class Linear:
    """A layer of int8 weights, packed for the processor's products of int8, which are exact.

    Each row is rounded to 256 steps between its least and its greatest value, after a few inputs that
    are far larger than the others are taken `apart`: Dettmers et al., "LLM.int8()", NeurIPS 2022. Where
    it is `is_fine`, what rounding took away is multiplied, too, which is worth it for few rows.
    """

    packed: nk.PackedMatrix
    scale: Floats
    terms: Floats
    """What each output adds for a row's middle, always, and for each input that is taken apart."""
    apart: Sequence[int]
    is_fine: bool

    @classmethod
    def of(
        cls,
        weights: Sequence[NDArray[np.int8]],
        scale: Floats,
        bias: Floats,
        *,
        apart: Sequence[int] = (),
        is_fine: bool = False,
    ) -> "Linear":
        """Make a layer of matrices (inputs, outputs) side by side, with a scale and a bias by output."""
        matrix = np.concatenate(weights, axis=1)
        of_apart = matrix[list(apart)] * scale
        matrix[list(apart)] = 0
        sums = matrix.sum(axis=0, dtype=np.float32) * scale
        terms = (sums, np.broadcast_to(bias, sums.shape), of_apart)
        packed = nk.dots_pack(np.ascontiguousarray(matrix.T))
        return cls(packed, scale, np.concatenate(terms, dtype=np.float32), apart, is_fine)

    def apply(self, rows: Floats, out: Floats) -> Floats:
        """Write `rows @ weights * scale + bias` into `out`."""
        added = np.ones((len(rows), len(self.terms)), np.float32)
        if self.apart:
            added[:, 2:] = rows[:, self.apart]
            rows = rows.copy()
            rows[:, self.apart] = 0
        least = np.minimum.reduce(rows, axis=1, keepdims=True)
        step = np.maximum.reduce(rows, axis=1, keepdims=True) - least
        step /= _STEPS
        step += _EPSILON  # a row may have one value
        middle = added[:, :1]
        np.add(least, _MIDDLE * step, out=middle)
        codes = rows - middle
        codes /= step
        whole = np.rint(codes)
        np.copyto(out, self._products(whole), casting="same_kind")
        if self.is_fine:
            codes -= whole
            codes *= _FINE
            out += self._products(np.rint(codes, out=codes)) / _FINE
        out *= self.scale
        out *= step
        out += added @ self.terms
        return out

    def _products(self, codes: Floats) -> NDArray[np.int32]:
        return np.asarray(nk.dots_packed(codes.astype(np.int8), self.packed))


def normalise_layer(rows: Floats, gain: Floats, bias: Floats) -> Floats:
    """Give each row the mean 0 and the variance 1, then `gain` and `bias`, in place.

    Ba, Kiros and Hinton, "Layer Normalization", 2016; both models use the epsilon 1e-12.
    """
    width = rows.shape[1]
    rows -= np.add.reduce(rows, axis=1, keepdims=True) / width
    spread = np.einsum("ij,ij->i", rows, rows)
    spread /= width
    spread += _EPSILON
    rows /= np.sqrt(spread, out=spread)[:, None]
    rows *= gain
    rows += bias
    return rows


def unit_rows(rows: Floats) -> Floats:
    """Return the rows at length 1; a row of zeros stays one."""
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    units: Floats = rows / np.maximum(lengths, _EPSILON)[:, None]
    return units


_GRAPH, _INITIALIZER = 7, 5
_DIMENSIONS, _TYPE, _NAME, _DATA = 1, 2, 8, 9
_TYPES = {1: "<f4", 3: "i1", 7: "<i8", 9: "?"}
_TOO_MANY = 2**40
_VARINT, _FIXED_64, _LENGTH, _FIXED_32 = 0, 1, 2, 5

Arrays = dict[str, NDArray[Any]]
Span = tuple[int, int]


class OnnxError(ValueError):
    """The file is not an ONNX file, or uses a part of the format that is not read here."""


def read_arrays(file: Path) -> Arrays:
    """Return the named arrays of an ONNX file: bytes as views of the file, wider types as copies.

    Raises:
        OnnxError: The file cannot be understood.
        OSError: The file cannot be read.
    """
    if not file.stat().st_size:
        raise OnnxError(f"{file} is empty")
    with file.open("rb") as stream:
        mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        return dict(
            _array(mapped, tensor)
            for field, graph in _fields(mapped, (0, len(mapped)))
            if field == _GRAPH and isinstance(graph, tuple)
            for part, tensor in _fields(mapped, graph)
            if part == _INITIALIZER and isinstance(tensor, tuple)
        )
    except (IndexError, UnicodeDecodeError) as error:
        raise OnnxError(f"{file} ends within a field or has a name that is no text") from error


def _array(mapped: mmap.mmap, tensor: Span) -> tuple[str, NDArray[Any]]:
    shape: list[int] = []
    name, code, data = "", 0, (0, 0)
    for field, value in _fields(mapped, tensor):
        if field == _DIMENSIONS:
            shape += [value] if isinstance(value, int) else _packed(mapped, value)
        elif field == _TYPE and isinstance(value, int):
            code = value
        elif field == _NAME and isinstance(value, tuple):
            name = mapped[slice(*value)].decode()
        elif field == _DATA and isinstance(value, tuple):
            data = value
    if code not in _TYPES:
        raise OnnxError(f"the array {name!r} has the type {code}, which is not read")
    kind, count = np.dtype(_TYPES[code]), math.prod(shape)
    if data[1] - data[0] != count * kind.itemsize or any(size >= _TOO_MANY for size in shape):
        raise OnnxError(f"the array {name!r} has {data[1] - data[0]} bytes for the shape {shape}")
    array: NDArray[Any] = np.frombuffer(mapped, kind, count, data[0]).reshape(shape)
    # A file does not align its arrays, and arithmetic is slow on those that are not.
    return name, array if kind.itemsize == 1 else array.copy()


def _fields(mapped: mmap.mmap, span: Span) -> Iterator[tuple[int, int | Span]]:
    """Yield the number of each field of a message, with its value or where its bytes are."""
    at, end = span
    while at < end:
        key, at = _varint(mapped, at)
        kind = key & 7
        if kind == _VARINT:
            value, at = _varint(mapped, at)
            yield key >> 3, value
            continue
        if kind == _LENGTH:
            length, at = _varint(mapped, at)
        elif kind in (_FIXED_32, _FIXED_64):
            length = 4 if kind == _FIXED_32 else 8
        else:
            raise OnnxError(f"byte {at} has a field of kind {kind}, which the format does not have")
        if at + length > end:
            raise OnnxError(f"byte {at} begins a field that ends behind its message")
        yield key >> 3, (at, at + length)
        at += length


def _packed(mapped: mmap.mmap, span: Span) -> list[int]:
    numbers: list[int] = []
    at, end = span
    while at < end:
        number, at = _varint(mapped, at)
        numbers.append(number)
    return numbers


def _varint(mapped: mmap.mmap, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = mapped[at]
        at += 1
        number |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return number, at
