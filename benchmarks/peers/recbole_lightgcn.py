"""Time RecBole 1.2.1's LightGCN on a given split; runs in RecBole's own environment and prints one JSON line.

Usage: python recbole_lightgcn.py FOLDER BATCH_SIZE LAYERS EPOCHS
FOLDER holds train.tsv, valid.tsv and test.tsv with ``user item`` lines. Timed are training epochs and the full-ranking
evaluation of the validation part, each by RecBole's own loop. Its adjacency uses a SciPy method that newer versions
removed; the same matrix is built here instead, outside the timed part.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from pathlib import Path


def write_atomic_files(source: Path, folder: Path) -> None:
    """Write each part as a RecBole atomic file."""
    folder.mkdir(parents=True)
    for part in ("train", "valid", "test"):
        rows = (source / f"{part}.tsv").read_text()
        (folder / f"bench.{part}.inter").write_text("user_id:token\titem_id:token\n" + rows)


def main() -> None:
    source, batch_size, layers, epochs = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    sys.argv = sys.argv[:1]  # RecBole's configurator reads the command line by itself
    import numpy as np
    import torch
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.model.general_recommender import LightGCN
    from recbole.utils import get_trainer, init_seed

    def adjacency(self: LightGCN) -> torch.Tensor:
        users, items = (torch.from_numpy(np.asarray(ids)).long() for ids in self.interaction_matrix.coords)
        size = self.n_users + self.n_items
        index = torch.cat([torch.stack([users, items + self.n_users]), torch.stack([items + self.n_users, users])], 1)
        degree = torch.bincount(index[0], minlength=size).float() + 1e-7
        values = (degree[index[0]] * degree[index[1]]).rsqrt()
        return torch.sparse_coo_tensor(index, values, (size, size))

    LightGCN.get_norm_adj_mat = adjacency
    with tempfile.TemporaryDirectory() as root:
        write_atomic_files(source, Path(root) / "bench")
        config = Config(
            model="LightGCN",
            dataset="bench",
            config_dict={
                "data_path": root,
                "checkpoint_dir": f"{root}/saved",
                "load_col": {"inter": ["user_id", "item_id"]},
                "benchmark_filename": ["train", "valid", "test"],
                "n_layers": layers,
                "embedding_size": 64,
                "train_batch_size": batch_size,
                "metrics": ["Recall", "MRR", "NDCG", "Hit", "Precision", "MAP"],
                "topk": [5, 10, 20],
                "valid_metric": "Recall@20",
                "eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}, "order": "RO", "group_by": "user", "mode": "full"},
                "use_gpu": False,
                "show_progress": False,
                "state": "ERROR",
                "seed": 0,
            },
        )
        init_seed(0, True)
        dataset = create_dataset(config)
        train_data, valid_data, _ = data_preparation(config, dataset)
        model = LightGCN(config, train_data.dataset)
        trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        seconds, processor, evaluations, busy_evaluations, metrics = [], [], [], [], {}
        for epoch in range(epochs):
            start, busy = time.perf_counter(), time.process_time()
            trainer._train_epoch(train_data, epoch, show_progress=False)
            seconds.append(time.perf_counter() - start)
            processor.append(time.process_time() - busy)
        for _ in range(6):
            model.restore_user_e = None  # its cache of propagated embeddings
            start, busy = time.perf_counter(), time.process_time()
            metrics = dict(trainer.evaluate(valid_data, load_best_model=False, show_progress=False))
            evaluations.append(time.perf_counter() - start)
            busy_evaluations.append(time.process_time() - busy)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        json.dumps(
            {
                "system": "RecBole 1.2.1",
                "pairs": len(train_data.dataset),
                "epoch_seconds": seconds,
                "epoch_processor_seconds": processor,
                "evaluation_seconds": evaluations,
                "evaluation_processor_seconds": busy_evaluations,
                "metrics": metrics,
                "peak_mib": after / 1024,
                "before_training_mib": before / 1024,
                "torch": torch.__version__,
                "threads": torch.get_num_threads(),
            }
        )
    )


if __name__ == "__main__":
    main()
