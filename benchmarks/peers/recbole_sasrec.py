"""Time RecBole 1.2.1's SASRec on a sequence file; runs in RecBole's own environment and prints one JSON line.

Usage: python recbole_sasrec.py SEQUENCES BATCH_SIZE EPOCHS
The loss is RecBole's full-softmax cross-entropy on prefix rows, leave-one-out, window 50: the published protocol.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from pathlib import Path


def write_atomic_file(sequences: Path, folder: Path) -> None:
    """Write the sequences as a RecBole atomic file whose time is the position in the sequence."""
    folder.mkdir(parents=True)
    with sequences.open() as lines, (folder / "bench.inter").open("w") as out:
        out.write("user_id:token\titem_id:token\ttimestamp:float\n")
        for line in lines:
            user, *items = line.split()
            out.writelines(f"{user}\t{item}\t{position}\n" for position, item in enumerate(items))


def main() -> None:
    sequences, batch_size, epochs = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    sys.argv = sys.argv[:1]  # RecBole's configurator reads the command line by itself
    import torch
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.model.sequential_recommender import SASRec
    from recbole.utils import get_trainer, init_seed

    with tempfile.TemporaryDirectory() as root:
        write_atomic_file(sequences, Path(root) / "bench")
        config = Config(
            model="SASRec",
            dataset="bench",
            config_dict={
                "data_path": root,
                "checkpoint_dir": f"{root}/saved",
                "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
                "MAX_ITEM_LIST_LENGTH": 50,
                "train_neg_sample_args": None,
                "loss_type": "CE",
                "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
                "train_batch_size": batch_size,
                "use_gpu": False,
                "show_progress": False,
                "state": "ERROR",
                "seed": 0,
            },
        )
        init_seed(0, True)
        dataset = create_dataset(config)
        train_data, _, _ = data_preparation(config, dataset)
        model = SASRec(config, train_data.dataset)
        trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        seconds = []
        for epoch in range(epochs):
            start = time.perf_counter()
            trainer._train_epoch(train_data, epoch, show_progress=False)
            seconds.append(time.perf_counter() - start)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        json.dumps(
            {
                "system": "RecBole 1.2.1",
                "batch": f"{batch_size} prefix rows",
                "targets": len(train_data.dataset),
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
