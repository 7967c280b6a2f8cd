"""From tables to arrays: interactions, sequences, splits, readers, the data doctor, the data set registry."""

from graphcl.data.doctor import DataWarning, DoctorReport, diagnose
from graphcl.data.ids import IdMap
from graphcl.data.interactions import Interactions, Sequences, k_core
from graphcl.data.prefixes import PrefixRows, SameTarget, prefix_rows, same_target_rows
from graphcl.data.read_report import DroppedRows, ReadReport
from graphcl.data.readers import FORMATS, read_features, read_interactions
from graphcl.data.registry import (
    Dataset,
    Recipe,
    RecipeFile,
    dataset_info,
    find_dataset_file,
    list_datasets,
    load_dataset,
)
from graphcl.data.splits import EvaluationSet, Split, leave_one_out, split_by_ratio, split_by_time
from graphcl.data.synthetic import synthetic_shop

__all__ = [
    "FORMATS",
    "DataWarning",
    "Dataset",
    "DoctorReport",
    "DroppedRows",
    "EvaluationSet",
    "IdMap",
    "Interactions",
    "PrefixRows",
    "ReadReport",
    "Recipe",
    "RecipeFile",
    "SameTarget",
    "Sequences",
    "Split",
    "dataset_info",
    "diagnose",
    "find_dataset_file",
    "k_core",
    "leave_one_out",
    "list_datasets",
    "load_dataset",
    "prefix_rows",
    "read_features",
    "read_interactions",
    "same_target_rows",
    "split_by_ratio",
    "split_by_time",
    "synthetic_shop",
]
