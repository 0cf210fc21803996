"""Models of sentence-transformers and fastembed, by name and by folder.

The libraries are large and not installed here: packages with their interface stand in for them.
"""

import gc
import json
import math
import struct
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from soulkeep.app import open_home
from soulkeep.embedders import Embedder, choose_embedder, embedder_of
from soulkeep.errors import EmbedderUnavailableError
from soulkeep.models import EmbedderChoice, NewMemory, Options

SENTENCE_TRANSFORMERS = """
calls = []
class SentenceTransformer:
    def __init__(self, name, local_files_only):
        calls.append((name, local_files_only))
        if name == "owner/absent" and local_files_only:
            raise OSError("not on this machine")
        if name.endswith("damaged"):
            raise RuntimeError("no weights")
    def encode(self, texts, prompt, batch_size, show_progress_bar):
        calls.append((prompt, *texts))
        return [[float(len(text)), 1.0 + text.count("e"), float(len(prompt))] for text in texts]
"""
FASTEMBED = """
calls, models = [], [{"model": "BAAI/bge-small-en-v1.5"}]
class TextEmbedding:
    def __init__(self, name, specific_model_path=None, local_files_only=False):
        calls.append((name, specific_model_path, local_files_only))
        if name not in [model["model"] for model in models]:
            raise ValueError("no such model")
    @classmethod
    def list_supported_models(cls):
        return models
    @classmethod
    def add_custom_model(cls, name, **described):
        models.append({"model": name, **described})
    def embed(self, texts, batch_size):
        calls.append(tuple(texts))
        return ([float(len(text))] * 383 + [1.0 + text.count("e")] for text in texts)
"""
DESCRIPTION = """
from types import SimpleNamespace
PoolingType = SimpleNamespace(CLS="CLS", MEAN="MEAN")
def ModelSource(hf): return hf
"""


@pytest.fixture(autouse=True)
def libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    written = {
        "sentence_transformers/__init__.py": SENTENCE_TRANSFORMERS,
        "fastembed/__init__.py": FASTEMBED,
        "fastembed/common/__init__.py": "",
        "fastembed/common/model_description.py": DESCRIPTION,
    }
    for name, source in written.items():
        (tmp_path / "site" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "site" / name).write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path / "site")
    yield
    for name in [
        n for n in sys.modules if n.partition(".")[0] in ("sentence_transformers", "fastembed")
    ]:
        del sys.modules[name]


def chosen(name: str, **settings: Any) -> Embedder:
    embedder = choose_embedder(EmbedderChoice(name, **settings))
    assert embedder is not None
    return embedder


def calls(module: str) -> list[tuple[Any, ...]]:
    return list(sys.modules[module].calls)


def folder(path: Path, **files: Any) -> Path:
    path.mkdir()
    for name, holds in files.items():
        file = path / name.replace("__", "/").replace("_json", ".json").replace("_onnx", ".onnx")
        file.parent.mkdir(exist_ok=True)
        file.write_text(holds if isinstance(holds, str) else json.dumps(holds), encoding="utf-8")
    return path


def test_a_model_by_name_is_asked_for_here_first_and_fetched_only_where_it_is_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    chosen("sentence-transformers:owner/here", dimensions=3).embed(["Tea."])
    here = calls("sentence_transformers")[0]
    chosen("sentence-transformers:owner/absent", dimensions=3).embed(["Tea."])
    absent = [call for call in calls("sentence_transformers") if call[0] == "owner/absent"]

    assert here == ("owner/here", True)
    assert absent == [("owner/absent", True), ("owner/absent", False)]
    assert "owner/absent is not on this machine; sentence-transformers fetches it" in caplog.text
    assert "owner/here" not in caplog.text


@pytest.mark.parametrize(
    ("kind", "model"),
    [("sentence-transformers", "owner/shared"), ("fastembed", "BAAI/bge-small-en-v1.5")],
)
def test_homes_of_a_process_share_a_model_of_the_same_choice(
    kind: str, model: str, tmp_path: Path
) -> None:
    options = Options(embedder=EmbedderChoice(f"{kind}:{model}", dimensions=3))
    homes = [open_home(tmp_path / name, options=options) for name in ("anna", "ben", "carl")]
    for home in homes:
        home.memories.remember([NewMemory("Tea.")])
        home.queue.work_off()
        home.memories.recall("What?")

    shared = {id(home.indexes.configured) for home in homes}
    loaded = [call for call in calls(kind.replace("-", "_")) if call[0] == model]
    assert (len(shared), len(loaded)) == (1, 1)
    assert id(chosen(f"{kind}:{model}", dimensions=3, passage_prefix="D: ")) not in shared
    assert id(chosen(f"{kind}:owner/other", dimensions=3)) not in shared
    for home in homes:
        home.close()


def test_a_shared_model_goes_with_the_last_who_has_it() -> None:
    one = chosen("sentence-transformers:owner/shared", dimensions=3)
    assert chosen("sentence-transformers:owner/shared", dimensions=3) is one
    gone = weakref.ref(one)
    del one
    gc.collect()

    assert gone() is None


def test_a_folder_says_its_prefixes_and_width_and_nothing_is_fetched(tmp_path: Path) -> None:
    model = folder(
        tmp_path / "mine",
        config_json={"hidden_size": 9},
        config_sentence_transformers_json={"prompts": {"query": "Q: ", "document": "D: "}},
        **{"1_Pooling__config_json": {"word_embedding_dimension": 9}},
        **{"2_Dense__config_json": {"in_features": 9, "out_features": 3}},
    )

    embedder = chosen(f"sentence-transformers:{model}")
    kept = embedder.embed(["Tea.", "Bread."])
    asked = embedder.embed_query("What?")

    values = [struct.unpack("<3f", vector) for vector in (*kept.embeddings, *asked.embeddings)]
    assert [math.hypot(*vector) for vector in values] == pytest.approx([1, 1, 1])
    assert embedder.identity.startswith("sentence-transformers:mine#")
    assert embedder.identity.endswith(' "D: ":3:unit')
    seen = calls("sentence_transformers")
    assert seen[0] == (str(model), True)
    assert (seen[1][0], seen[1][-2:]) == ("D: ", ("Tea.", "Bread."))
    assert seen[-1] == ("Q: ", "What?")
    assert (embedder.is_local, embedder.is_quick, embedder.price) == (True, False, 0.0)


def test_an_onnx_file_in_a_folder_is_described_once_to_fastembed(tmp_path: Path) -> None:
    model = folder(
        tmp_path / "e5-small-mine",
        onnx__model_onnx="weights",
        **{"1_Pooling__config_json": {"pooling_mode_cls_token": True}},
    )

    first, second = (chosen(f"fastembed:{model}") for _ in range(2))
    first.embed(["Tea."])
    second.embed_query("Tea?")

    assert first.identity == second.identity
    assert first.identity.endswith(' "passage: ":384:unit')
    described = sys.modules["fastembed"].models[1:]
    assert [(m["model_file"], m["pooling"], m["dim"]) for m in described] == [
        ("onnx/model.onnx", "CLS", 384)
    ]
    assert {call[1:] for call in calls("fastembed") if len(call) == 3} == {(str(model), True)}
    assert calls("fastembed")[-1][-1] == "query: Tea?"


@pytest.mark.parametrize("change", ["weights", "name", "settings"])
def test_another_model_in_the_same_folder_has_another_identity(change: str, tmp_path: Path) -> None:
    model = folder(tmp_path / "mine", model_onnx="weights", config_json={"hidden_size": 384})
    before = chosen(f"fastembed:{model}").identity
    (model / "README.md").write_text("read me", encoding="utf-8")
    assert chosen(f"fastembed:{model}").identity == before
    moved = model.rename(tmp_path / "elsewhere").rename(model)
    assert chosen(f"fastembed:{moved}").identity == before

    if change == "weights":
        (model / "model.onnx").write_text("WEIGHTS", encoding="utf-8")
    elif change == "name":
        model = model.rename(tmp_path / "other")
    else:
        (model / "config.json").write_text('{"hidden_size": 384 }', encoding="utf-8")

    assert chosen(f"fastembed:{model}").identity != before


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("fastembed:/no/such/folder", "there is no folder '/no/such/folder'"),
        ("sentence-transformers:../mine", "neither a model's name nor a whole path"),
        ("fastembed:a b", "neither a model's name nor a whole path"),
        ("sentence-transformers:mine#0123456789ab", "neither a model's name nor a whole path"),
        ("other:model", "there is none of that name"),
        ("openai", "there is none of that name"),
    ],
)
def test_what_can_be_no_model_is_refused_at_once(name: str, said: str) -> None:
    with pytest.raises(EmbedderUnavailableError, match=said):
        choose_embedder(name)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("sentence-transformers:owner/damaged", "no weights"),
        ("fastembed:owner/unknown", "no such model"),
    ],
)
def test_what_a_library_cannot_load_is_said_when_it_is_first_used(name: str, said: str) -> None:
    embedder = chosen(name)

    for _ in range(2):
        with pytest.raises(EmbedderUnavailableError, match=said):
            embedder.embed(["Tea."])


def test_without_its_library_a_model_is_refused_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("soulkeep.embedders.other_models.find_spec", lambda _: None)

    for kind in ("sentence-transformers", "fastembed"):
        with pytest.raises(EmbedderUnavailableError, match=rf"pip install soulkeep\[{kind}\]"):
            choose_embedder(f"{kind}:a-model")


def test_the_former_model_is_had_by_its_name_but_not_one_of_a_folder(tmp_path: Path) -> None:
    named = chosen("fastembed:intfloat/e5-small").identity
    of_folder = chosen(f"fastembed:{folder(tmp_path / 'mine', model_onnx='weights')}").identity

    former = embedder_of(named, EmbedderChoice("universal"))

    assert former is not None
    assert former.identity == named
    assert embedder_of(of_folder, EmbedderChoice("universal")) is None
