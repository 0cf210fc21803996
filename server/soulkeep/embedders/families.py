"""How the common families of embedding models want their texts, by the name of the model.

A model that was trained with prefixes is worse without them, and so is one that was not with them. Each
line names the source of what it says; of other models nothing is known.
"""

import re
from dataclasses import dataclass

_SEARCH = "Represent this sentence for searching relevant passages: "
_INSTRUCT = (
    "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery: "
)
_QWEN = _INSTRUCT.rstrip(" ")


@dataclass(frozen=True, slots=True)
class Family:
    """What stands before a question and before a text that is kept, and how wide the vectors are.

    `dimensions` is 0 where it is unknown. The first of the dimensions alone are a good vector too where
    the model `can_be_cut` (Matryoshka representation learning: Kusupati et al., NeurIPS 2022).
    """

    query: str = ""
    passage: str = ""
    dimensions: int = 0
    can_be_cut: bool = False


UNKNOWN = Family()

_SIZES = {"xs": 384, "small": 384, "s": 384, "base": 768, "m": 768, "large": 1024, "l": 1024}

# The first pattern that is found in a name counts. A named group `size` says how wide the vectors are.
_FAMILIES: tuple[tuple[str, Family], ...] = (
    # platform.openai.com/docs/guides/embeddings: "dimensions" shortens the third generation.
    (r"^text-embedding-3-small", Family(dimensions=1536, can_be_cut=True)),
    (r"^text-embedding-3-large", Family(dimensions=3072, can_be_cut=True)),
    (r"^text-embedding-ada-002", Family(dimensions=1536)),
    # huggingface.co/intfloat/multilingual-e5-large-instruct and e5-mistral-7b-instruct
    (r"\be5-large-instruct", Family(_INSTRUCT, dimensions=1024)),
    (r"\be5-mistral", Family(_INSTRUCT, dimensions=4096)),
    # huggingface.co/intfloat/e5-base-v2 and multilingual-e5-base
    (r"\be5-(?P<size>small|base|large)", Family("query: ", "passage: ")),
    (r"\be5\b", Family("query: ", "passage: ")),
    # huggingface.co/BAAI/bge-m3: no instruction; bge-base-zh-v1.5 and bge-base-en-v1.5: for questions
    (r"\bbge-m3", Family(dimensions=1024)),
    (r"\bbge-small-zh", Family("为这个句子生成表示以用于检索相关文章：", dimensions=512)),  # noqa: RUF001
    (r"\bbge-(?P<size>base|large)-zh", Family("为这个句子生成表示以用于检索相关文章：")),  # noqa: RUF001
    (r"\bbge-(?P<size>small|base|large)", Family(_SEARCH)),
    # huggingface.co/nomic-ai/nomic-embed-text-v1, v1.5 (can be cut) and v2-moe (can be cut)
    (r"\bnomic-embed-text-v1(?!\.5)", Family("search_query: ", "search_document: ", 768)),
    (r"\bnomic-embed-text", Family("search_query: ", "search_document: ", 768, can_be_cut=True)),
    # huggingface.co/google/embeddinggemma-300m
    (
        r"\bembeddinggemma|\bembedding-gemma",
        Family("task: search result | query: ", "title: none | text: ", 768, can_be_cut=True),
    ),
    # huggingface.co/Alibaba-NLP/gte-Qwen2-1.5B-instruct and gte-Qwen2-7B-instruct
    (r"\bgte-qwen2?-?1\.5b", Family(_INSTRUCT, dimensions=1536)),
    (r"\bgte-qwen", Family(_INSTRUCT)),
    # huggingface.co/thenlper/gte-base, Alibaba-NLP/gte-large-en-v1.5 and gte-multilingual-base: none
    (r"\bgte-multilingual-base|\bgte-modernbert-base", Family(dimensions=768)),
    (r"\bgte-(?P<size>small|base|large)", Family()),
    # huggingface.co/Qwen/Qwen3-Embedding-0.6B, 4B and 8B: no space after the colon
    (r"\bqwen3-embedding[-:]0\.6b", Family(_QWEN, dimensions=1024, can_be_cut=True)),
    (r"\bqwen3-embedding[-:]4b", Family(_QWEN, dimensions=2560, can_be_cut=True)),
    (r"\bqwen3-embedding[-:]8b", Family(_QWEN, dimensions=4096, can_be_cut=True)),
    (r"\bqwen3-embedding", Family(_QWEN, can_be_cut=True)),
    # huggingface.co/mixedbread-ai/mxbai-embed-large-v1
    (r"\bmxbai-embed-large", Family(_SEARCH, dimensions=1024, can_be_cut=True)),
    # huggingface.co/Snowflake/snowflake-arctic-embed-m and snowflake-arctic-embed-l-v2.0
    (r"\barctic-embed-(?P<size>m|l)-v2", Family("query: ", can_be_cut=True)),
    (r"\barctic-embed2", Family("query: ", dimensions=1024, can_be_cut=True)),
    (r"\barctic-embed-(?P<size>xs|s|m|l)\b", Family(_SEARCH)),
    # huggingface.co/sentence-transformers/all-MiniLM-L6-v2 and all-mpnet-base-v2: none
    (r"\b(all|paraphrase|multi-qa)-.*minilm", Family(dimensions=384)),
    (r"\b(all|paraphrase|multi-qa)-.*mpnet", Family(dimensions=768)),
)


def family_of(model: str) -> Family:
    """Return what is known of a model by its name, which may have an owner, a tag or a suffix."""
    name = model.lower().replace("_", "-")
    for pattern, family in _FAMILIES:
        if found := re.search(pattern, name):
            size = _SIZES.get(found.groupdict().get("size", ""), family.dimensions)
            return Family(family.query, family.passage, size, family.can_be_cut)
    return UNKNOWN
