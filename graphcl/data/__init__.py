"""From tables to arrays: interactions, sequences, splits, readers, the data doctor, the data set registry."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from graphcl.data.bundle_doctor import BundleReport, diagnose_bundles
from graphcl.data.bundle_sources import (
    load_bundles,
    read_bundle_folder,
    read_bundle_table,
    read_bundles,
    session_bundles,
    synthetic_bundles,
)
from graphcl.data.bundles import Bundles, PartialBundles, sorted_bundles, split_bundles
from graphcl.data.doctor import DataWarning, DoctorReport, diagnose
from graphcl.data.event_generator import EnterpriseLog, enterprise_log
from graphcl.data.events import Events, load_events, read_events, stream_events
from graphcl.data.extreme_text import (
    read_extreme_folder,
    read_extreme_text,
    read_query_features,
    read_sparse_rows,
)
from graphcl.data.features import (
    Incidence,
    ItemFeatures,
    read_item_features,
    read_item_incidence,
    table_features,
)
from graphcl.data.ids import IdMap
from graphcl.data.interactions import Interactions, Sequences, k_core
from graphcl.data.prefixes import PrefixRows, SameTarget, prefix_rows, same_target_rows
from graphcl.data.read_report import DroppedRows, ReadReport
from graphcl.data.readers import FORMATS, read_features, read_interactions
from graphcl.data.registry import (
    BundleRecipe,
    Dataset,
    GraphRecipe,
    InteractionRecipe,
    Recipe,
    RecipeFile,
    dataset_info,
    find_dataset_file,
    graph_recipe,
    list_datasets,
    load_dataset,
    recipe_files,
)
from graphcl.data.retrieval import LabelledQueries, RetrievalData, SparseRows, load_retrieval
from graphcl.data.retrieval_generator import synthetic_tags
from graphcl.data.retrieval_texts import read_label_texts, read_query_texts, read_text_retrieval
from graphcl.data.semantics import (
    SemanticVectors,
    attribute_vectors,
    cooccurrence_vectors,
    feature_vectors,
    file_vectors,
    history_vectors,
    join_vectors,
    prefix_vectors,
    semantic_vectors,
    text_vectors,
)
from graphcl.data.sentence_encoder import encode_texts
from graphcl.data.split_files import (
    find_published_split,
    hold_out_validation,
    read_json_split,
    read_labelled_split,
    read_text_split,
)
from graphcl.data.splits import EvaluationSet, Split, leave_one_out, split_by_ratio, split_by_time
from graphcl.data.synthetic import synthetic_shop

if TYPE_CHECKING:
    from graphcl.data.graph_doctor import GraphReport, diagnose_graph
    from graphcl.data.graph_generators import digits_graph, stochastic_block_model
    from graphcl.data.graph_tables import read_edge_list, read_vectors
    from graphcl.data.graphs import GraphDataset, graph_counts, load_graph
    from graphcl.data.heterogeneous_tables import read_typed_edges

# What needs torch is imported when it is first asked for.
_LAZY = {
    "GraphDataset": "graphcl.data.graphs",
    "GraphReport": "graphcl.data.graph_doctor",
    "diagnose_graph": "graphcl.data.graph_doctor",
    "digits_graph": "graphcl.data.graph_generators",
    "graph_counts": "graphcl.data.graphs",
    "load_graph": "graphcl.data.graphs",
    "read_edge_list": "graphcl.data.graph_tables",
    "read_typed_edges": "graphcl.data.heterogeneous_tables",
    "read_vectors": "graphcl.data.graph_tables",
    "stochastic_block_model": "graphcl.data.graph_generators",
}

__all__ = [
    "FORMATS",
    "BundleRecipe",
    "BundleReport",
    "Bundles",
    "DataWarning",
    "Dataset",
    "DoctorReport",
    "DroppedRows",
    "EnterpriseLog",
    "EvaluationSet",
    "Events",
    "GraphDataset",
    "GraphRecipe",
    "GraphReport",
    "IdMap",
    "Incidence",
    "InteractionRecipe",
    "Interactions",
    "ItemFeatures",
    "LabelledQueries",
    "PartialBundles",
    "PrefixRows",
    "ReadReport",
    "Recipe",
    "RecipeFile",
    "RetrievalData",
    "SameTarget",
    "SemanticVectors",
    "Sequences",
    "SparseRows",
    "Split",
    "attribute_vectors",
    "cooccurrence_vectors",
    "dataset_info",
    "diagnose",
    "diagnose_bundles",
    "diagnose_graph",
    "digits_graph",
    "encode_texts",
    "enterprise_log",
    "feature_vectors",
    "file_vectors",
    "find_dataset_file",
    "find_published_split",
    "graph_counts",
    "graph_recipe",
    "history_vectors",
    "hold_out_validation",
    "join_vectors",
    "k_core",
    "leave_one_out",
    "list_datasets",
    "load_bundles",
    "load_dataset",
    "load_events",
    "load_graph",
    "load_retrieval",
    "prefix_rows",
    "prefix_vectors",
    "read_bundle_folder",
    "read_bundle_table",
    "read_bundles",
    "read_edge_list",
    "read_events",
    "read_extreme_folder",
    "read_extreme_text",
    "read_features",
    "read_interactions",
    "read_item_features",
    "read_item_incidence",
    "read_json_split",
    "read_label_texts",
    "read_labelled_split",
    "read_query_features",
    "read_query_texts",
    "read_sparse_rows",
    "read_text_retrieval",
    "read_text_split",
    "read_typed_edges",
    "read_vectors",
    "recipe_files",
    "same_target_rows",
    "semantic_vectors",
    "session_bundles",
    "sorted_bundles",
    "split_bundles",
    "split_by_ratio",
    "split_by_time",
    "stochastic_block_model",
    "stream_events",
    "synthetic_bundles",
    "synthetic_shop",
    "synthetic_tags",
    "table_features",
    "text_vectors",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'graphcl.data' has no attribute {name!r}")
