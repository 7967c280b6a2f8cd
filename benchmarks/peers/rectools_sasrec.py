"""Time RecTools' SASRec on a sequence file; runs in RecTools' own environment and prints one JSON line.

Usage: python rectools_sasrec.py SEQUENCES BATCH_SIZE EPOCHS
The last two items of every user are removed first, so the supervised targets are those of leave-one-out training.
"""

from __future__ import annotations

import json
import resource
import sys
import time
import warnings
from pathlib import Path


def main() -> None:
    sequences, batch_size, epochs = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    warnings.filterwarnings("ignore")
    import logging
    from importlib.metadata import version

    import pandas as pd
    import torch
    from pytorch_lightning import Callback, Trainer
    from rectools.dataset import Dataset
    from rectools.models import SASRecModel

    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    rows: list[tuple[str, str, float, int]] = []
    for line in sequences.read_text().splitlines():
        user, *items = line.split()
        rows.extend((user, item, 1.0, position) for position, item in enumerate(items[:-2]))
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "weight", "datetime"])
    frame["datetime"] = pd.Timestamp("2020-01-01") + pd.to_timedelta(frame["datetime"], unit="D")
    dataset = Dataset.construct(frame)

    seconds: list[float] = []
    targets = 0

    class EpochClock(Callback):
        def on_train_epoch_start(self, trainer: Trainer, module: object) -> None:
            self.start = time.perf_counter()

        def on_train_batch_end(
            self, trainer: Trainer, module: object, outputs: object, batch: dict, index: int
        ) -> None:
            nonlocal targets
            if trainer.current_epoch == 0:
                targets += int((batch["y"] != 0).sum())

        def on_train_epoch_end(self, trainer: Trainer, module: object) -> None:
            seconds.append(time.perf_counter() - self.start)

    def trainer() -> Trainer:
        return Trainer(
            max_epochs=epochs,
            min_epochs=epochs,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[EpochClock()],
        )

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model = SASRecModel(
        n_blocks=2,
        n_heads=2,
        n_factors=64,
        dropout_rate=0.5,
        session_max_len=50,
        batch_size=batch_size,
        loss="softmax",
        dataloader_num_workers=0,
        get_trainer_func=trainer,
        deterministic=False,
    )
    model.fit(dataset)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        json.dumps(
            {
                "system": f"RecTools {version('rectools')}",
                "batch": f"{batch_size} users",
                "targets": targets,
                "epoch_seconds": seconds,
                "peak_mib": after / 1024,
                "before_training_mib": before / 1024,
                "torch": torch.__version__,
                "threads": torch.get_num_threads(),
            }
        )
    )


if __name__ == "__main__":
    main()
