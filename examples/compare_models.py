"""Two models with two seeds each on a generated shop, chosen by validation and compared by paired tests (seconds)."""

import tempfile
from pathlib import Path

from graphcl.data import leave_one_out, synthetic_shop
from graphcl.pipelines.sweep import plan_sweep
from graphcl.report import compare_runs

split = leave_one_out(synthetic_shop(num_users=120, num_items=60, seed=0))
shared = {"epochs": 2, "seen": "keep", "metric": "NDCG@10", "progress": False}

with tempfile.TemporaryDirectory() as folder:
    for model, alternatives in (
        ("sasrec", {"hidden": [8, 16], "max_length": [10], "heads": [1], "inner": [16]}),
        ("lightgcn", {"hidden": [16], "mask": ["all_known"]}),
    ):
        plan = plan_sweep(model, Path(folder) / model, shared, alternatives, seeds=range(2))
        plan.prepare(resume=False, overwrite=False)
        for run in plan.pending(resume=False):
            run.pipeline.fit(split, out=run.folder)
    found = compare_runs([folder], "NDCG@10", best=True)  # of each model the setting that validation prefers

for group in found.groups:
    test = group.summary(found.metric)
    p_values = [None if p is None else round(p, 4) for p in (group.p_seeds, group.p_users)]
    print(f"{group.name:<18} {found.metric} {test['mean']:.4f} ± {test['deviation']:.4f}  p (seeds, users): {p_values}")
print("\n".join(found.notes))
