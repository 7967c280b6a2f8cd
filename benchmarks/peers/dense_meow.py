"""Plain transcription of MEOW's views, epoch and probe and of AdaMEOW's loss, for `benchmarks/embedding_speed.py`.

It follows the public code: PathSim by a loop over the rows of dense matrices, torch sparse tensors for propagation, the
weights of the negatives as dense N x N products of one-hot clusters, the weight network on an N x N x d tensor of sums,
one probe after the other. K-means of 5 draws and 20 rounds is written in torch (the public code uses faiss). Nothing of
graphcl is used, so that the two can be compared.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
from sklearn.metrics import f1_score, roc_auc_score
from torch import Tensor, nn
from torch.nn import functional


def incidence(path: Path, shape: tuple[int, int]) -> sp.csr_matrix:
    """0/1 matrix of a file of two columns."""
    pairs = np.loadtxt(path, dtype=np.int64)
    return sp.csr_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=shape)


def pathsim_rows(counts: np.ndarray, k: int) -> np.ndarray:
    """Dense counts of the k most similar nodes of every row, one pair of nodes after the other in numpy rows."""
    size = counts.shape[0]
    kept = np.zeros((size, size))
    own = counts.diagonal()
    for row in range(size):
        similarity = np.zeros(size)
        for other in counts[row].nonzero()[0]:
            similarity[other] = 2 * counts[row, other] / (own[row] + own[other])
        best = np.argsort(similarity)[::-1][:k]
        kept[row, best] = counts[row, best]
    return kept


def normalized(matrix: np.ndarray) -> np.ndarray:
    """``D^-1/2 T^T D^-1/2``."""
    degree = matrix.sum(1)
    root = np.where(degree > 0, 1 / np.sqrt(np.maximum(degree, 1e-30)), 0.0)
    return (matrix * root).T * root


def masked(matrix: np.ndarray, ratio: float, rng: np.random.Generator) -> np.ndarray:
    """Without a part of the edges, the others with weight 1, and self loops."""
    rows, columns = (matrix - np.diag(matrix.diagonal())).nonzero()
    stays = np.ones(len(rows), dtype=bool)
    stays[rng.choice(len(rows), int(ratio * len(rows)), replace=False)] = False
    result = np.eye(matrix.shape[0])
    result[rows[stays], columns[stays]] = 1.0
    return result


def as_sparse(matrix: np.ndarray | sp.csr_matrix) -> Tensor:
    """A torch sparse tensor."""
    entries = sp.coo_matrix(matrix)
    index = torch.from_numpy(np.stack([entries.row, entries.col]).astype(np.int64))
    return torch.sparse_coo_tensor(index, torch.tensor(entries.data, dtype=torch.float32), entries.shape).coalesce()


def by_row(matrix: sp.csr_matrix) -> sp.csr_matrix:
    """Rows of sum 1."""
    sums = np.asarray(matrix.sum(1)).ravel()
    return sp.diags(np.where(sums > 0, 1 / np.maximum(sums, 1e-30), 0.0)) @ matrix


def kmeans(rows: Tensor, number: int, draws: int = 5, rounds: int = 20) -> tuple[Tensor, Tensor]:
    """Clusters by inner product and their means, the best of some random starts."""
    best: tuple[float, Tensor, Tensor] | None = None
    for _ in range(draws):
        centres = rows[torch.randperm(len(rows))[:number]]
        for _ in range(rounds):
            closeness, ids = (rows @ centres.T).max(1)
            count = torch.bincount(ids, minlength=number).float()
            means = torch.zeros_like(centres).index_add(0, ids, rows) / count.clamp(min=1)[:, None]
            centres = torch.where(count[:, None] > 0, means, centres)
        closeness, ids = (rows @ centres.T).max(1)
        if best is None or float(closeness.sum()) > best[0]:
            best = float(closeness.sum()), ids, centres
    assert best is not None
    return best[1:]


class DenseMEOW(nn.Module):
    """MEOW on ACM with the public hyper-parameters: features of papers, authors and subjects, paths PAP and PSP."""

    def __init__(self, folder: Path, *, k: Sequence[int] = (110, 700), ratios: Sequence[float] = (0.3, 0.2)) -> None:
        super().__init__()
        rng = np.random.default_rng(0)
        papers = sp.csr_matrix(sp.load_npz(folder / "p_feat.npz"), dtype=np.float64)
        authors = sp.csr_matrix(sp.load_npz(folder / "a_feat.npz"), dtype=np.float64)
        joins = [
            incidence(folder / "pa.txt", (papers.shape[0], authors.shape[0])),
            incidence(folder / "ps.txt", (papers.shape[0], 60)),
        ]
        self.operators, self.masked_operators, self.contexts = [], [], []
        for join, most, ratio in zip(joins, k, ratios, strict=True):
            counts = pathsim_rows((join @ join.T).toarray(), most)
            self.operators.append(as_sparse(normalized(counts)))
            self.masked_operators.append(as_sparse(normalized(masked(counts, ratio, rng))))
            self.contexts.append(as_sparse(by_row(join)))
        self.coarse = ((self.operators[0] + self.operators[1]) / 2).coalesce()
        features = by_row(papers)
        self.features = [torch.tensor(one.toarray(), dtype=torch.float32) for one in (features, by_row(authors))]
        self.features.append(torch.eye(60))
        hidden = features.copy()
        hidden.data[rng.choice(hidden.nnz, int(0.3 * hidden.nnz), replace=False)] = 0.0
        self.masked_features = torch.tensor(hidden.toarray(), dtype=torch.float32)
        self.types = nn.ModuleList(nn.Linear(one.shape[1], 64) for one in self.features)
        self.paths = nn.ModuleList(nn.Linear(64, 64, bias=False) for _ in self.contexts)
        self.first, self.second = (nn.Parameter(torch.rand(64, 64) / 4 - 0.125) for _ in range(2))
        self.slope, self.attend = nn.PReLU(), nn.Linear(64, 64)
        self.vector, self.project = nn.Parameter(torch.randn(1, 64) * 0.25), nn.Linear(64, 64)

    def encode(self, h: Tensor, operator: Tensor) -> Tensor:
        """Two convolutions and a layer norm over all entries."""
        h = self.slope(torch.sparse.mm(operator, functional.dropout(h @ self.first, 0.2, self.training)))
        h = torch.sparse.mm(operator, functional.dropout(h @ self.second, 0.2, self.training))
        return functional.layer_norm(h, h.shape)

    def forward(self) -> tuple[Tensor, Tensor]:
        """Projected coarse and fine rows."""
        drop = lambda x: functional.dropout(x, 0.2, self.training)  # noqa: E731
        rows = [functional.elu(drop(one(x))) for one, x in zip(self.types, self.features, strict=True)]
        hidden = functional.elu(drop(self.types[0](self.masked_features)))
        views = []
        for place, context in enumerate(self.contexts):
            term = drop(self.paths[place](torch.sparse.mm(context, rows[place + 1])))
            for h, operator in ((rows[0], self.operators[place]), (hidden, self.masked_operators[place])):
                views.append(functional.normalize(self.encode(functional.elu(h + term), operator)))
        scores = torch.cat([drop(self.vector) @ torch.tanh(self.attend(view)).mean(0) for view in views])
        mixed = (torch.softmax(scores, 0)[:, None, None] * torch.stack(views)).sum(0)
        sides = self.encode(rows[0], self.coarse), mixed
        u, v = (functional.normalize(torch.tanh(self.project(side))) for side in sides)
        return u, v

    def loss(self, clusters: Sequence[int] = (100, 300), temperature: float = 0.4) -> Tensor:
        """One step: both terms, with clusterings drawn anew."""
        u, v = self()
        size = u.shape[0]
        weight, prototype = torch.full((size, size), float(len(clusters))), torch.zeros(())
        for number in clusters:
            ids, centres = kmeans(v.detach(), number)
            one_hot = torch.sparse_coo_tensor(torch.stack([torch.arange(size), ids]), torch.ones(size), (size, number))
            weight = weight - torch.sparse.mm(one_hot, one_hot.to_dense().T)
            near = (v.detach() * centres[ids]).sum(1).clamp(min=0).sqrt()
            count = torch.bincount(ids, minlength=number).float()
            density = torch.zeros(number).index_add(0, ids, near) / count.clamp(min=1) / torch.log(count + 5)
            density = density.clamp(torch.quantile(density, 0.1), torch.quantile(density, 0.9))
            density = temperature * density / density.mean()
            logit = torch.exp(u @ functional.normalize(centres).T / density)
            own = logit.gather(1, ids[:, None])[:, 0]
            prototype = prototype - torch.log(own / (size / number * logit.sum(1))).mean()
        similarity = torch.exp(u @ v.T / temperature)
        info = -torch.log(similarity.diag() / (weight * similarity).sum(1)).mean()
        return info + prototype / len(clusters)


def dense_adameow(x: Tensor, y: Tensor, hidden: nn.Linear, out: nn.Linear) -> Tensor:
    """AdaMEOW's loss at temperature 1 with the network on all sums of two rows at once."""
    weight = torch.sigmoid(out(torch.tanh(hidden(x[:, None] + y[None]))))[:, :, 0]
    similarity = torch.exp(x @ y.T)
    return -torch.log(similarity.diag() / (weight * similarity).sum(1)).mean()


def probe_once(z: Tensor, labels: Tensor, train: Tensor, val: Tensor, test: Tensor, rate: float) -> tuple[float, ...]:
    """One repeat of the linear probe: Macro-F1, Micro-F1 and AUC at the best steps of validation."""
    model = nn.Linear(z.shape[1], int(labels.max()) + 1)
    nn.init.xavier_uniform_(model.weight)
    nn.init.zeros_(model.bias)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    found = []
    for _ in range(200):
        optimizer.zero_grad()
        functional.cross_entropy(model(z[train]), labels[train]).backward()
        optimizer.step()
        with torch.no_grad():
            logits = {name: model(z[part]) for name, part in (("val", val), ("test", test))}
        guess = {name: value.argmax(1) for name, value in logits.items()}
        scores = []
        for name, part in (("val", val), ("test", test)):
            scores += [f1_score(labels[part], guess[name], average=average) for average in ("macro", "micro")]
        shares = torch.softmax(logits["test"], 1)
        found.append((*scores, roc_auc_score(labels[test], shares, multi_class="ovr"), copy.deepcopy(logits)))
    macro = max(range(200), key=lambda step: found[step][0])
    micro = max(range(200), key=lambda step: found[step][1])
    return found[macro][2], found[micro][3], found[micro][4]
