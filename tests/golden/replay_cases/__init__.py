"""One module a family of oracle cases; importing the package registers them all."""

from replay_cases import graph, losses, sequential
from replay_cases.registry import Case, Document, NotCovered, Partial, read_document, runner_of

__all__ = [
    "Case",
    "Document",
    "NotCovered",
    "Partial",
    "graph",
    "losses",
    "read_document",
    "runner_of",
    "sequential",
]
