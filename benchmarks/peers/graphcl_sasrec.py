"""Time our SASRec on a sequence file, epoch by epoch; prints one JSON line.

Usage: python graphcl_sasrec.py SEQUENCES EPOCHS
Supervision is that of the peers: every prefix of every user without the last two items, full softmax, window 50.
"""

from __future__ import annotations

import csv
import json
import resource
import sys
import tempfile
from pathlib import Path


def main() -> None:
    sequences, epochs = Path(sys.argv[1]), int(sys.argv[2])
    import torch

    from graphcl.data import leave_one_out, read_interactions
    from graphcl.pipelines import SequentialRecommender

    split = leave_one_out(read_interactions(sequences, format="sequences"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as folder:
        SequentialRecommender("sasrec", epochs=epochs, patience=epochs, max_length=50, seed=0, progress=False).fit(
            split, out=Path(folder) / "run"
        )
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with (Path(folder) / "run" / "history.csv").open() as file:
            history = list(csv.DictReader(file))
    print(
        json.dumps(
            {
                "system": "graphcl",
                "batch": "default",
                "targets": round(float(history[0]["tokens_per_second"]) * float(history[0]["seconds"])),
                "epoch_seconds": [float(row["seconds"]) for row in history],
                "peak_mib": after / 1024,
                "before_training_mib": before / 1024,
                "torch": torch.__version__,
                "threads": torch.get_num_threads(),
            }
        )
    )


if __name__ == "__main__":
    main()
