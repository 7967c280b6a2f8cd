"""From tables to arrays: interactions, sequences, splits, readers, the data doctor, the data set registry."""

from graphcl.data.ids import IdMap
from graphcl.data.interactions import Interactions, Sequences, k_core
from graphcl.data.read_report import DroppedRows, ReadReport
from graphcl.data.splits import EvaluationSet, Split, leave_one_out, split_by_ratio, split_by_time

__all__ = [
    "DroppedRows",
    "EvaluationSet",
    "IdMap",
    "Interactions",
    "ReadReport",
    "Sequences",
    "Split",
    "k_core",
    "leave_one_out",
    "split_by_ratio",
    "split_by_time",
]
