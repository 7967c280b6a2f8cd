"""Tag texts: train a dual encoder against all tags, compare objectives, search the exported index.

python examples/retrieve_tags.py
"""

from __future__ import annotations

import tempfile

import numpy as np

from graphcl.data import synthetic_tags
from graphcl.pipelines import RetrievalIndex, Retriever


def main() -> None:
    """Train on made-up texts whose tags share words with them."""
    data = synthetic_tags(1500, num_labels=150, num_words=600, seed=0)
    assert data.test is not None
    for objective in ("softmax", "decoupled", "soft_top_k"):
        retriever = Retriever(
            objective=objective, dim=32, epochs=8, learning_rate=0.01, baselines=False, progress=False
        )
        measured = retriever.fit(data).evaluate("test").metrics.to_dict()
        print(objective, {name: f"{measured[name]:.3f}" for name in ("P@1", "P@5", "R@20", "PSP@5")})

    classifier = Retriever(labels="ids", dim=32, epochs=8, learning_rate=0.01, progress=False).fit(data)
    print(f"labels without features: P@1 {classifier.evaluate('test').metrics.values['P@1']:.3f}")

    with tempfile.TemporaryDirectory() as folder:
        retriever.index().save(folder)
        names, scores = RetrievalIndex.load(folder).search(retriever.encode(data.test.take(np.arange(1)).features), 3)
    print("the first test text:", list(zip(names[0].tolist(), scores[0].round(3).tolist(), strict=True)))


if __name__ == "__main__":
    main()
