"""Find unusual combinations in a log of events: train APE, measure it, score a file in chunks.

python examples/event_anomalies.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import polars as pl

from graphcl.data import enterprise_log
from graphcl.metrics import detection_metrics
from graphcl.pipelines import EventScorer


def main() -> None:
    """Train on a made-up log of users, hosts, processes, destinations and hours."""
    log = enterprise_log(40_000, scale=0.05, num_teams=12, seed=0)
    scorer = EventScorer("ape", dim=32, epochs=12, batch_size=2048, seed=0, progress=False).fit(log.events)
    measured = scorer.evaluate("test").metrics.to_dict()
    test = slice(36_000, None)
    assert log.events.label is not None
    best = detection_metrics(log.oracle_scores(test), log.events.label[test])
    print(f"average precision {measured['AP']:.3f}; of a detector that knows the generator {best['AP']:.3f}")

    with tempfile.TemporaryDirectory() as folder:
        source, scored = Path(folder) / "events.csv", Path(folder) / "scores.csv"
        log.events.to_table(range(1000)).write_csv(source)
        print(f"scored {scorer.score_file(source, scored, chunk=300)} events; the first:")
        print(scored.read_text().splitlines()[1])

    unseen = log.events.to_table([0]).with_columns(host=pl.lit("host-from-nowhere"))
    print(scorer.score(unseen).select("score", "unseen"))


if __name__ == "__main__":
    main()
