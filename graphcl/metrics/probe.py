"""Probes of frozen embeddings: linear by the papers' protocol, logistic regression, neighbours, links, k-means."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphcl.kernels import SparseMatrix, edge_dot, knn, normalize_rows
from graphcl.metrics.clustering import ari, clustering_accuracy, nmi
from graphcl.metrics.summary import MeanStd, mean_and_deviation

__all__ = [
    "ClassificationScores",
    "ClassifierResult",
    "ClusteringProbe",
    "LinearProbe",
    "LinearProbeResult",
    "LinkPrediction",
    "classification_scores",
    "kmeans_probe",
    "knn_probe",
    "linear_probe",
    "link_prediction_probe",
    "logistic_probe",
    "one_vs_rest_auc",
    "sample_non_edges",
    "train_linear_probe",
]

# Strengths of the L2 penalty that the logistic probe chooses from by validation, as GRACE and its followers do.
_PENALTIES = tuple(2.0**power for power in range(-10, 11, 2))


class ClassificationScores(NamedTuple):
    """Macro-F1 and Micro-F1 (the accuracy); numbers, or a row of them a batch."""

    macro_f1: Tensor
    micro_f1: Tensor


@dataclass(frozen=True)
class LinearProbe:
    """R linear classifiers of C classes, trained side by side.

    Attributes:
        weight: ``(R, C, d)``.
        bias: ``(R, C)``.
        losses: ``(steps, R)`` cross-entropy before each step.
    """

    weight: Tensor
    bias: Tensor
    losses: Tensor

    def logits(self, x: Tensor) -> Tensor:
        """``(R, n, C)`` for ``x`` (n, d)."""
        return _logits(x, self.weight, self.bias)


@dataclass(frozen=True)
class LinearProbeResult:
    """Test scores over the repeats: mean and population deviation.

    Attributes:
        macro_f1: at the step of best validation Macro-F1.
        micro_f1: at the step of best validation Micro-F1.
        auc: one-vs-rest, macro mean, at the step of best validation Micro-F1.
        repeats: number of initial weights.
    """

    macro_f1: MeanStd
    micro_f1: MeanStd
    auc: MeanStd
    repeats: int

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers by name, ready for JSON: ``macro_f1``, ``macro_f1_std`` and so on."""
        named = {"macro_f1": self.macro_f1, "micro_f1": self.micro_f1, "auc": self.auc}
        flat = {
            key: value for name, pair in named.items() for key, value in ((name, pair.mean), (f"{name}_std", pair.std))
        }
        return {**flat, "repeats": self.repeats}


@dataclass(frozen=True)
class ClassifierResult:
    """Test scores of one classifier.

    Attributes:
        accuracy: share of test nodes classified rightly (Micro-F1).
        macro_f1: mean over classes.
        chosen: the setting that validation chose, None without validation.
    """

    accuracy: float
    macro_f1: float
    chosen: float | None = None

    def to_dict(self) -> dict[str, float | None]:
        """Plain numbers by name, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class LinkPrediction:
    """How well the similarity of two nodes tells edges from other pairs.

    Attributes:
        auc: area under the ROC curve.
        average_precision: of edges, with one non-edge an edge.
        num_edges: edges that were scored.
    """

    auc: float
    average_precision: float
    num_edges: int

    def to_dict(self) -> dict[str, float | int]:
        """Plain numbers by name, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class ClusteringProbe:
    """Agreement of k-means clusters with the classes over the repeats: mean and population deviation."""

    nmi: MeanStd
    ari: MeanStd
    accuracy: MeanStd
    repeats: int

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers by name, ready for JSON: ``nmi``, ``nmi_std`` and so on."""
        named = {"nmi": self.nmi, "ari": self.ari, "accuracy": self.accuracy}
        flat = {
            key: value for name, pair in named.items() for key, value in ((name, pair.mean), (f"{name}_std", pair.std))
        }
        return {**flat, "repeats": self.repeats}


@torch.no_grad()
def train_linear_probe(
    x: Tensor,
    y: Tensor,
    weight: Tensor,
    *,
    steps: int = 200,
    learning_rate: float = 0.01,
    weight_decay: float = 0.0,
    after_step: Callable[[Tensor, Tensor], None] | None = None,
) -> LinearProbe:
    """Train R linear classifiers at once: full-batch Adam (Kingma, Ba 2015) on the mean cross-entropy, zero bias first.

    The classifiers share the data and nothing else, so that one matrix product a step serves all of them, and the
    gradient of a linear classifier is written out: ``(softmax - one-hot)^T x / n``.

    Args:
        x: ``(n, d)`` floating point.
        y: ``(n,)`` classes 0 .. C - 1.
        weight: ``(R, C, d)`` initial weights; not changed.
        steps: number of updates.
        learning_rate: of Adam, with its usual constants.
        weight_decay: L2 penalty as in `torch.optim.Adam`, on bias too.
        after_step: called with weight and bias after every update.

    Returns:
        The classifiers and the loss before every step.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity:
        O(steps n R C d) time, O(n R C + R C d) memory.

    Example:
        >>> probe = train_linear_probe(torch.tensor([[1.0], [-1.0]]), torch.tensor([0, 1]), torch.zeros(1, 2, 1))
        >>> probe.logits(torch.tensor([[2.0]])).argmax(dim=2)
        tensor([[0]])
    """
    repeats, classes, width = _check_probe(x, y, weight, steps)
    bias = weight.new_zeros(repeats, classes)
    weight = weight.clone()
    states = [(part, torch.zeros_like(part), torch.zeros_like(part)) for part in (weight, bias)]
    target = torch.nn.functional.one_hot(y, classes).to(x.dtype)
    losses = x.new_empty(steps, repeats)
    for step in range(1, steps + 1):
        log_probability = torch.log_softmax(_logits(x, weight, bias), dim=2)
        losses[step - 1] = -(log_probability * target).sum(dim=(1, 2)) / x.shape[0]
        error = (log_probability.exp() - target) / x.shape[0]
        # (R, n, C) -> (R C, n) times (n, d): one product for all classifiers.
        flat = error.permute(0, 2, 1).reshape(repeats * classes, -1)
        gradients = ((flat @ x).reshape(weight.shape), error.sum(dim=1))
        for (part, first, second), gradient in zip(states, gradients, strict=True):
            _adam_step(part, gradient.add(part, alpha=weight_decay), first, second, step, learning_rate)
        if after_step is not None:
            after_step(weight, bias)
    return LinearProbe(weight, bias, losses)


@torch.no_grad()
def linear_probe(
    x: Tensor,
    labels: Tensor,
    train: Tensor,
    val: Tensor,
    test: Tensor,
    *,
    repeats: int = 50,
    steps: int = 200,
    learning_rate: float = 0.01,
    weight_decay: float = 0.0,
    seed: int = 0,
) -> LinearProbeResult:
    """The linear probe of HeCo and MEOW, all repeats trained as one batched problem.

    Wang et al. 2021, https://arxiv.org/abs/2105.09111, section 5. A linear layer (Xavier-uniform weights, zero bias)
    is trained by full-batch Adam. After every step validation and test are scored; the test Macro-F1 counts at the
    step of best validation Macro-F1, Micro-F1 and AUC at the step of best validation Micro-F1. The first of equally
    good steps wins.

    Args:
        x: ``(N, d)`` frozen embeddings.
        labels: ``(N,)`` classes 0 .. C - 1; -1 only outside of the three parts.
        train: ``(N,)`` boolean mask or node numbers; likewise ``val`` and ``test``.
        val: see train.
        test: see train.
        repeats: initial weights.
        steps: updates of each.
        learning_rate: of Adam.
        weight_decay: of Adam.
        seed: of the initial weights.

    Returns:
        Mean and deviation over the repeats.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity:
        O(steps (n + v + t) R C d) time for n, v and t nodes in the parts, O((n + v + t) R C) memory.

    Example:
        >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).repeat(6, 1)
        >>> y = torch.tensor([0, 1]).repeat(6)
        >>> parts = torch.arange(12).split(4)
        >>> linear_probe(x, y, *parts, repeats=2).macro_f1
        MeanStd(mean=1.0, std=0.0)
    """
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, got {repeats}")
    x = x if x.is_floating_point() else x.float()
    classes = _check_labels(labels, x.shape[0])
    parts = [_nodes(name, part, labels) for name, part in (("train", train), ("val", val), ("test", test))]
    (x_train, y_train), (x_val, y_val), (x_test, y_test) = ((x[nodes], labels[nodes]) for nodes in parts)
    bound = math.sqrt(6.0 / (classes + x.shape[1]))
    generator = torch.Generator().manual_seed(seed)
    weight = torch.rand(repeats, classes, x.shape[1], generator=generator, dtype=x.dtype).mul_(2 * bound).sub_(bound)
    best = _BestSteps(repeats, x_val, y_val, x_test, y_test)
    train_linear_probe(
        x_train,
        y_train,
        weight.to(x.device),
        steps=steps,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        after_step=best.look,
    )
    return LinearProbeResult(
        mean_and_deviation(best.test_macro.tolist()),
        mean_and_deviation(best.test_micro.tolist()),
        mean_and_deviation(one_vs_rest_auc(best.test_logits.softmax(dim=2), y_test).tolist()),
        repeats,
    )


class _BestSteps:
    """Test scores of every repeat at its best steps so far by validation."""

    def __init__(self, repeats: int, x_val: Tensor, y_val: Tensor, x_test: Tensor, y_test: Tensor) -> None:
        self.x = torch.cat([x_val, x_test])
        self.split = x_val.shape[0]
        self.y_val, self.y_test = y_val, y_test
        self.val_macro = self.x.new_full((repeats,), -1.0, dtype=torch.float64)
        self.val_micro, self.test_macro, self.test_micro = (self.val_macro.clone() for _ in range(3))
        self.test_logits = self.x.new_empty(0)

    def look(self, weight: Tensor, bias: Tensor) -> None:
        logits = _logits(self.x, weight, bias)
        val_logits, test_logits = logits[:, : self.split], logits[:, self.split :]
        classes = weight.shape[1]
        val = classification_scores(_argmax(val_logits), self.y_val, classes)
        test = classification_scores(_argmax(test_logits), self.y_test, classes)
        macro, micro = val.macro_f1 > self.val_macro, val.micro_f1 > self.val_micro
        self.val_macro = torch.where(macro, val.macro_f1, self.val_macro)
        self.val_micro = torch.where(micro, val.micro_f1, self.val_micro)
        self.test_macro = torch.where(macro, test.macro_f1, self.test_macro)
        self.test_micro = torch.where(micro, test.micro_f1, self.test_micro)
        if self.test_logits.numel() == 0:
            self.test_logits = test_logits.clone()
        else:
            self.test_logits[micro] = test_logits[micro]


def classification_scores(predicted: Tensor, target: Tensor, num_classes: int) -> ClassificationScores:
    """Macro-F1 and Micro-F1 from confusion counts, of many predictions at once.

    Args:
        predicted: ``(n,)`` or ``(R, n)`` classes.
        target: ``(n,)`` classes, n at least 1.
        num_classes: C.

    Returns:
        Numbers or ``(R,)`` float64. Macro-F1 is the mean over classes that occur in the target or the prediction.

    Raises:
        ValueError: shapes that do not fit, no sample.

    Complexity:
        O(R (n + C^2)).

    Example:
        >>> classification_scores(torch.tensor([0, 1, 1]), torch.tensor([0, 1, 0]), 2).macro_f1
        tensor(0.6667, dtype=torch.float64)
    """
    if target.dim() != 1 or target.shape[0] == 0 or predicted.shape[-1:] != target.shape:
        raise ValueError(
            f"predicted and target must have shapes (..., n) and (n,) with n of at least 1, "
            f"got {tuple(predicted.shape)} and {tuple(target.shape)}"
        )
    rows = predicted.reshape(-1, target.shape[0])
    block = torch.arange(rows.shape[0], device=rows.device).unsqueeze(1) * num_classes
    cell = (block + target) * num_classes + rows
    count = torch.bincount(cell.reshape(-1), minlength=rows.shape[0] * num_classes**2)
    confusion = count.reshape(rows.shape[0], num_classes, num_classes).double()
    hit = confusion.diagonal(dim1=1, dim2=2)
    size = confusion.sum(dim=2) + confusion.sum(dim=1)
    # F1 = 2 TP / (target size + predicted size).
    macro = (2 * hit / size.clamp_min(1)).sum(dim=1) / (size > 0).sum(dim=1)
    micro = hit.sum(dim=1) / target.shape[0]
    return ClassificationScores(macro.reshape(predicted.shape[:-1]), micro.reshape(predicted.shape[:-1]))


def one_vs_rest_auc(scores: Tensor, target: Tensor) -> Tensor:
    """Area under the ROC curve of each class against the others, averaged over classes; ties count one half.

    Args:
        scores: ``(n, C)`` or ``(R, n, C)``; column c is larger for samples of class c.
        target: ``(n,)`` classes.

    Returns:
        A number or ``(R,)`` float64: the mean over classes that have samples inside and outside; NaN without any.

    Raises:
        ValueError: shapes that do not fit.

    Complexity:
        O(R C n log n).

    Example:
        >>> one_vs_rest_auc(torch.tensor([[0.9, 0.1], [0.2, 0.8]]), torch.tensor([0, 1]))
        tensor(1., dtype=torch.float64)
    """
    if target.dim() != 1 or scores.shape[-2:-1] != target.shape:
        raise ValueError(
            f"scores and target must have shapes (..., n, C) and (n,), "
            f"got {tuple(scores.shape)} and {tuple(target.shape)}"
        )
    member = torch.nn.functional.one_hot(target, scores.shape[-1]).double()
    columns = scores.detach().transpose(-2, -1).contiguous()
    ascending = columns.sort(dim=-1).values
    # Equal scores share the mean of their ranks.
    low, high = (torch.searchsorted(ascending, columns, right=right) for right in (False, True))
    rank = ((low + high + 1) / 2).double().transpose(-2, -1)
    inside = member.sum(dim=0)
    outside = member.shape[0] - inside
    # Mann-Whitney: the ranks of the class, less those it has among itself.
    area = ((rank * member).sum(dim=-2) - inside * (inside + 1) / 2) / (inside * outside)
    known = (inside > 0) & (outside > 0)
    return area[..., known].mean(dim=-1)


def logistic_probe(
    x: Tensor,
    labels: Tensor,
    train: Tensor,
    test: Tensor,
    *,
    val: Tensor | None = None,
    penalties: Sequence[float] = _PENALTIES,
    normalize: bool = True,
    max_iterations: int = 1000,
) -> ClassifierResult:
    """Logistic regression on frozen embeddings, as GRACE and its followers evaluate on the public Planetoid splits.

    Zhu et al. 2020, https://arxiv.org/abs/2006.04131. The inverse strength of the L2 penalty is the one of best
    validation accuracy (the smallest of equally good ones); without validation nodes it is 1.

    Args:
        x: ``(N, d)`` frozen embeddings.
        labels: ``(N,)`` classes.
        train: mask or node numbers; likewise ``test`` and ``val``.
        test: see train.
        val: see train; None to choose nothing.
        penalties: inverse strengths to choose from, ascending.
        normalize: bring rows to unit length.
        max_iterations: of the solver.

    Returns:
        Test scores and the chosen inverse strength.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity:
        O(penalties x iterations x n C d).

    Example:
        >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).repeat(4, 1)
        >>> logistic_probe(x, torch.tensor([0, 1] * 4), torch.arange(4), torch.arange(4, 8)).accuracy
        1.0
    """
    from sklearn.linear_model import LogisticRegression

    classes = _check_labels(labels, x.shape[0])
    rows = (normalize_rows(x.detach()) if normalize else x.detach()).cpu().double().numpy()
    known = labels.cpu()
    named = {"train": train, "test": test, **({} if val is None else {"val": val})}
    nodes = {name: _nodes(name, part.cpu(), known) for name, part in named.items()}
    if torch.unique(known[nodes["train"]]).numel() < 2:
        raise ValueError("train must hold nodes of at least two classes")

    def predictions(strength: float) -> dict[str, Tensor]:
        model = LogisticRegression(C=strength, max_iter=max_iterations)
        model.fit(rows[nodes["train"].numpy()], known[nodes["train"]].numpy())
        return {name: torch.from_numpy(model.predict(rows[part.numpy()])) for name, part in nodes.items()}

    best: tuple[float, float | None, Tensor] | None = None
    for strength in (1.0,) if val is None else penalties:
        predicted = predictions(strength)
        reached = 0.0 if val is None else float((predicted["val"] == known[nodes["val"]]).double().mean())
        if best is None or reached > best[0]:
            best = (reached, None if val is None else strength, predicted["test"])
    if best is None:
        raise ValueError("penalties must hold at least one number, got none")
    scores = classification_scores(best[2], known[nodes["test"]], classes)
    return ClassifierResult(float(scores.micro_f1), float(scores.macro_f1), best[1])


@torch.no_grad()
def knn_probe(
    x: Tensor,
    labels: Tensor,
    train: Tensor,
    test: Tensor,
    *,
    k: int = 10,
    metric: Literal["cosine", "euclidean"] = "cosine",
) -> ClassifierResult:
    """Class of the majority of the k nearest training nodes; of equally frequent classes the one that is nearer.

    Args:
        x: ``(N, d)`` frozen embeddings.
        labels: ``(N,)`` classes.
        train: mask or node numbers; likewise ``test``.
        test: see train.
        k: voters; all training nodes when there are fewer.
        metric: ``cosine`` or ``euclidean``.

    Returns:
        Test scores.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity:
        O(n t d) time for n training and t test nodes, in blocks.

    Example:
        >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).repeat(4, 1)
        >>> knn_probe(x, torch.tensor([0, 1] * 4), torch.arange(4), torch.arange(4, 8), k=1).accuracy
        1.0
    """
    if metric not in ("cosine", "euclidean"):
        raise ValueError(f"metric must be 'cosine' or 'euclidean', got {metric!r}")
    classes = _check_labels(labels, x.shape[0])
    voters, nodes = _nodes("train", train, labels), _nodes("test", test, labels)
    k = min(k, voters.numel())
    similarity: Literal["cosine", "sqeuclidean"] = "cosine" if metric == "cosine" else "sqeuclidean"
    nearest = knn(x[nodes], k, y=x[voters], similarity=similarity).indices
    votes = torch.nn.functional.one_hot(labels[voters][nearest], classes).double()
    # Ranks add less than one vote in all, so they only part equals: the nearer voters weigh more.
    weight = 1 + torch.arange(k, 0, -1, device=x.device, dtype=torch.float64) / (k * (k + 1))
    predicted = (votes * weight.unsqueeze(1)).sum(dim=1).argmax(dim=1)
    scores = classification_scores(predicted, labels[nodes], classes)
    return ClassifierResult(float(scores.micro_f1), float(scores.macro_f1))


@torch.no_grad()
def link_prediction_probe(
    x: Tensor,
    graph: SparseMatrix,
    *,
    edges: Tensor | None = None,
    similarity: Literal["cosine", "dot"] = "cosine",
    max_edges: int = 100_000,
    seed: int = 0,
) -> LinkPrediction:
    """Tell edges from as many pairs without an edge by the similarity of their ends.

    Edges that the embeddings were trained on are told easily: for an honest figure hold edges out of training, and
    give them as ``edges`` and the whole graph, the held-out edges included, as ``graph``.

    Args:
        x: ``(N, d)`` frozen embeddings.
        graph: ``(N, N)`` all edges there are, in either or both directions; no sampled pair is among them.
        edges: ``(2, M)`` edges to score; None scores those of the graph (each pair once, no self-loops).
        similarity: ``cosine`` or ``dot``.
        max_edges: score a uniform sample of so many when there are more.
        seed: of both samples.

    Returns:
        AUC and average precision.

    Raises:
        ValueError, TypeError: naming the argument and the value; no edge, or fewer non-edges than edges.

    Complexity:
        O(E log E + M d).

    Example:
        >>> x = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
        >>> graph = SparseMatrix.from_edge_index(torch.tensor([[0, 2], [1, 3]]), num_nodes=4)
        >>> link_prediction_probe(x, graph).auc
        1.0
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    if similarity not in ("cosine", "dot"):
        raise ValueError(f"similarity must be 'cosine' or 'dot', got {similarity!r}")
    if graph.shape != (x.shape[0], x.shape[0]):
        raise ValueError(f"graph must have shape {(x.shape[0], x.shape[0])}, got {graph.shape}")
    keys = _pair_keys(graph)
    if edges is None:
        edges = torch.stack([keys // x.shape[0], keys % x.shape[0]])
    if edges.dim() != 2 or edges.shape[0] != 2 or edges.shape[1] == 0:
        raise ValueError(f"edges must have shape (2, M) with M of at least 1, got {tuple(edges.shape)}")
    generator = torch.Generator().manual_seed(seed)
    if edges.shape[1] > max_edges:
        edges = edges[:, torch.randperm(edges.shape[1], generator=generator)[:max_edges].to(edges.device)]
    count = edges.shape[1]
    pairs = torch.cat([edges, _non_edges(keys, x.shape[0], count, generator)], dim=1)
    scores = edge_dot(x, x, pairs[0], pairs[1], similarity=similarity).double().cpu().numpy()
    truth = np.repeat([1, 0], count)
    return LinkPrediction(float(roc_auc_score(truth, scores)), float(average_precision_score(truth, scores)), count)


def sample_non_edges(graph: SparseMatrix, count: int, *, generator: torch.Generator) -> Tensor:
    """Pairs of different nodes that no edge joins in either direction, uniformly and without repeats.

    Args:
        graph: ``(N, N)``.
        count: number of pairs.
        generator: of the draws, on the CPU.

    Returns:
        ``(2, count)`` int64, the smaller node first.

    Raises:
        ValueError: the graph is not square, or has fewer such pairs.

    Complexity:
        O((E + count) log E) while less than half of all pairs are edges or wanted, else O(N^2).

    Example:
        >>> line = SparseMatrix.from_edge_index(torch.tensor([[0, 1], [1, 2]]), num_nodes=3)
        >>> sample_non_edges(line, 1, generator=torch.Generator().manual_seed(0))
        tensor([[0],
                [2]])
    """
    if graph.shape[0] != graph.shape[1]:
        raise ValueError(f"graph must be square, got shape {graph.shape}")
    return _non_edges(_pair_keys(graph), graph.shape[0], count, generator)


def kmeans_probe(
    x: Tensor,
    labels: Tensor,
    *,
    num_clusters: int | None = None,
    repeats: int = 10,
    restarts: int = 10,
    seed: int = 0,
) -> ClusteringProbe:
    """K-means of the embeddings against the classes, as MEOW and HeCo report it.

    Args:
        x: ``(N, d)`` frozen embeddings.
        labels: ``(N,)`` classes; nodes with -1 are clustered and not scored.
        num_clusters: None for the number of classes.
        repeats: clusterings.
        restarts: initialisations of each, the best by inertia counts.
        seed: of the first clustering; the others count up.

    Returns:
        Mean and deviation of NMI, ARI and accuracy over the repeats.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity:
        O(repeats x restarts x iterations x N K d).

    Example:
        >>> x = torch.tensor([[0.0], [0.1], [5.0], [5.1]])
        >>> kmeans_probe(x, torch.tensor([0, 0, 1, 1]), repeats=2).nmi
        MeanStd(mean=1.0, std=0.0)
    """
    from sklearn.cluster import KMeans

    classes = _check_labels(labels, x.shape[0])
    size = num_clusters or classes
    if repeats < 1 or not 1 <= size <= x.shape[0]:
        raise ValueError(f"repeats must be at least 1 and num_clusters 1 to {x.shape[0]}, got {repeats} and {size}")
    rows = x.detach().cpu().numpy()
    found: list[NDArray[Any]] = [
        KMeans(size, n_init=restarts, random_state=seed + repeat).fit_predict(rows) for repeat in range(repeats)
    ]

    def summary(score: Callable[[Tensor, NDArray[Any]], float]) -> MeanStd:
        return mean_and_deviation(score(labels, each) for each in found)

    return ClusteringProbe(summary(nmi), summary(ari), summary(clustering_accuracy), repeats)


def _logits(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(R, n, C) of all classifiers by one product; in memory class by class, which `_argmax` and the softmax like."""
    repeats, classes, width = weight.shape
    flat = weight.transpose(0, 1).reshape(classes * repeats, width)
    scores = torch.addmm(bias.T.reshape(-1, 1), flat, x.T)
    return scores.reshape(classes, repeats, x.shape[0]).permute(1, 2, 0)


def _argmax(logits: Tensor) -> Tensor:
    """Class of the largest logit, the first of equal ones. `torch.argmax` over few classes takes ten times as long."""
    best, *others = logits.unbind(dim=2)
    found = torch.zeros_like(best, dtype=torch.int64)
    for label, score in enumerate(others, start=1):
        found.masked_fill_(score > best, label)
        best = torch.maximum(best, score)
    return found


def _adam_step(part: Tensor, gradient: Tensor, first: Tensor, second: Tensor, step: int, learning_rate: float) -> None:
    """Update of `torch.optim.Adam` with its default constants, in place."""
    first.lerp_(gradient, 0.1)
    second.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
    deviation = (second.sqrt() / math.sqrt(1 - 0.999**step)).add_(1e-8)
    part.addcdiv_(first, deviation, value=-learning_rate / (1 - 0.9**step))


def _pair_keys(graph: SparseMatrix) -> Tensor:
    """Every joined pair of different nodes once, as smaller x N + larger, ascending."""
    low = torch.minimum(graph.pattern.rows, graph.columns)
    high = torch.maximum(graph.pattern.rows, graph.columns)
    keys: Tensor = torch.unique(low[low < high] * graph.shape[0] + high[low < high])
    return keys


def _non_edges(keys: Tensor, num_nodes: int, count: int, generator: torch.Generator) -> Tensor:
    free = num_nodes * (num_nodes - 1) // 2 - keys.numel()
    if count > free:
        raise ValueError(f"count must be at most the {free} pairs without an edge, got {count}")
    if 2 * (keys.numel() + count) > num_nodes * (num_nodes - 1) // 2:
        # Few pairs are left: list them all.
        low, high = torch.triu_indices(num_nodes, num_nodes, 1, device=keys.device)
        every = low * num_nodes + high
        left = every[~torch.isin(every, keys)]
        found = left[torch.randperm(free, generator=generator)[:count].to(keys.device)]
    else:
        found = keys.new_empty(0)
        while found.numel() < count:
            drawn = torch.randint(num_nodes, (2, 2 * (count - found.numel()) + 16), generator=generator)
            low, high = drawn.amin(dim=0).to(keys.device), drawn.amax(dim=0).to(keys.device)
            key = (low * num_nodes + high)[low < high]
            found = torch.unique(torch.cat([found, key[~torch.isin(key, keys)]]))
        # The list is sorted: a uniform part of it, not its beginning.
        found = found[torch.randperm(found.numel(), generator=generator)[:count].to(keys.device)]
    return torch.stack([found // num_nodes, found % num_nodes])


def _nodes(name: str, part: Tensor, labels: Tensor) -> Tensor:
    """Node numbers of a mask or of a list of numbers; all of them labelled."""
    if part.dim() != 1:
        raise ValueError(f"{name} must be a mask or a list of nodes, got shape {tuple(part.shape)}")
    if part.dtype == torch.bool:
        if part.shape != labels.shape:
            raise ValueError(f"{name} must be a mask of {labels.shape[0]} nodes, got {part.shape[0]}")
        part = torch.nonzero(part).squeeze(1)
    if part.numel() == 0:
        raise ValueError(f"{name} must hold at least one node, got none")
    if int(part.min()) < 0 or int(part.max()) >= labels.shape[0]:
        raise ValueError(
            f"{name} must hold nodes 0 to {labels.shape[0] - 1}, got {int(part.min())} to {int(part.max())}"
        )
    if bool((labels[part] < 0).any()):
        raise ValueError(f"{name} must hold nodes with a label, got {int(part[labels[part] < 0][0])} without one")
    return part


def _check_labels(labels: Tensor, num_nodes: int) -> int:
    """Number of classes."""
    if labels.dtype != torch.int64:
        raise TypeError(f"labels must be int64, got dtype {labels.dtype}")
    if labels.shape != (num_nodes,) or num_nodes == 0:
        raise ValueError(f"labels must have shape ({num_nodes},) with at least one node, got {tuple(labels.shape)}")
    return max(int(labels.max()) + 1, 1)


def _check_probe(x: Tensor, y: Tensor, weight: Tensor, steps: int) -> tuple[int, int, int]:
    if x.dim() != 2 or weight.dim() != 3 or weight.shape[2] != x.shape[1] or weight.dtype != x.dtype:
        raise ValueError(
            f"weight must have shape (R, C, d) and the dtype of x (n, d), got {weight.dtype} of {tuple(weight.shape)} "
            f"and {x.dtype} of {tuple(x.shape)}"
        )
    if y.shape != x.shape[:1] or y.numel() == 0:
        raise ValueError(f"y must have shape ({x.shape[0]},) with at least one sample, got {tuple(y.shape)}")
    if int(y.min()) < 0 or int(y.max()) >= weight.shape[1]:
        raise ValueError(f"y must hold classes 0 to {weight.shape[1] - 1}, got {int(y.min())} to {int(y.max())}")
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    return weight.shape[0], weight.shape[1], weight.shape[2]
