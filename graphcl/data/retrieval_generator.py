"""Made-up texts with tags, in seconds: tags share words with the texts, few are common and many rare."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from graphcl.data.retrieval import LabelledQueries, RetrievalData, SparseRows

__all__ = ["synthetic_tags"]

IntArray = NDArray[np.int64]

_WORDS_PER_TAG = 6
_MOST_TAGS = 8


def synthetic_tags(
    num_queries: int = 4000,
    *,
    num_labels: int = 400,
    num_words: int = 1500,
    words_per_query: int = 24,
    seed: int = 0,
) -> RetrievalData:
    """Draw texts with tags.

    Every tag belongs to a topic and has a name of six words: four of its own choice and two of the words of its topic.
    A text has one to eight tags of one topic, popular ones more often (by a power of the rank), and its words are those
    of its tags' names, three times in four, or any. A fifth of the texts is the test.

    Args:
        num_queries: texts, at least 10.
        num_labels: tags, at least 10.
        num_words: size of the vocabulary, at least 20.
        words_per_query: words drawn a text.
        seed: of all draws.

    Returns:
        Training and test texts, and the words of the tags' names as their features.

    Raises:
        ValueError: an argument is out of range.

    Complexity: O(queries (words + labels)).

    Example:
        >>> data = synthetic_tags(500)
        >>> data.train.num_queries, data.num_labels, data.label_features.width
        (400, 400, 1500)
    """
    if num_queries < 10 or num_labels < 10 or num_words < 20 or words_per_query < 1:
        raise ValueError("there must be at least 10 queries, 10 labels, 20 words, and 1 word a query")
    generator = np.random.default_rng(seed)
    topics = max(1, num_labels // 20)
    topic = generator.permutation(np.arange(num_labels) % topics)
    popularity = (generator.permutation(num_labels) + 1.0) ** -0.8
    shared = generator.integers(0, num_words, (topics, 8))
    own = generator.integers(0, num_words, (num_labels, _WORDS_PER_TAG - 2))
    common = np.take_along_axis(shared[topic], generator.integers(0, 8, (num_labels, 2)), axis=1)
    names = np.concatenate([own, common], axis=1)
    weight = np.bincount(topic, weights=popularity, minlength=topics)
    rows: list[IntArray] = []
    labels: list[IntArray] = []
    for kind in generator.choice(topics, num_queries, p=weight / weight.sum()):
        members = np.flatnonzero(topic == kind)
        size = min(int(generator.integers(1, _MOST_TAGS + 1)), members.size)
        share = popularity[members] / popularity[members].sum()
        tags = np.sort(generator.choice(members, size, replace=False, p=share))
        words = names[generator.choice(tags, words_per_query), generator.integers(0, _WORDS_PER_TAG, words_per_query)]
        stray = generator.random(words_per_query) < 0.25
        rows.append(np.where(stray, generator.integers(0, num_words, words_per_query), words))
        labels.append(tags)
    queries = LabelledQueries(
        _counted(rows, num_words), SparseRows.from_lists([tags.tolist() for tags in labels], num_labels)
    )
    cut = num_queries - num_queries // 5
    return RetrievalData(
        queries.take(np.arange(cut)),
        queries.take(np.arange(cut, num_queries)),
        label_features=_counted(list(names), num_words),
        label_ids=np.array([f"tag-{number:04d}" for number in range(num_labels)], dtype=object),
        source="synthetic-tags",
    )


def _counted(rows: list[IntArray], width: int) -> SparseRows:
    """Bags of words: every word once, with its count."""
    counted = [np.unique(row, return_counts=True) for row in rows]
    offsets = np.concatenate([[0], np.cumsum([words.size for words, _ in counted])]).astype(np.int64)
    return SparseRows(
        offsets,
        np.concatenate([words for words, _ in counted]),
        np.concatenate([count for _, count in counted]).astype(np.float32),
        width,
    )
