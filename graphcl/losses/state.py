"""What contrastive objectives remember between steps. All of it is in ``state_dict`` and moves with the module."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from graphcl.kernels import normalize_rows, pair_topk

__all__ = ["ClusterState", "EMAEncoder", "FeatureQueue", "PerSampleState", "Prototypes"]


class FeatureQueue(nn.Module):
    """The last M unit rows that were pushed, as negatives of later batches.

    K. He et al., "Momentum Contrast for Unsupervised Visual Representation Learning", 2020,
    https://arxiv.org/abs/1911.05722. Rows are stored detached and normalised. Places that were never written are not
    returned, so a young queue is short and never random. Position and filling are part of the state.

    Args:
        size: M, how many rows are kept.
        dim: d.
        integers: names of integers kept beside each row, such as ``("ids", "labels")``.

    Raises:
        ValueError: sizes below 1, or a push that does not match.

    Complexity: O(M d) memory, O(B d) a push.

    >>> import torch
    >>> queue = FeatureQueue(3, 2, integers=("ids",))
    >>> queue.push(torch.eye(2), ids=torch.tensor([7, 8]))
    >>> queue.push(torch.eye(2), ids=torch.tensor([9, 10]))
    >>> len(queue), queue.integers("ids")
    (3, tensor([10,  8,  9]))
    """

    def __init__(self, size: int, dim: int, *, integers: Sequence[str] = ()) -> None:
        super().__init__()
        if size < 1 or dim < 1:
            raise ValueError(f"size and dim must be at least 1, got {size} and {dim}")
        self.size = size
        self._names = tuple(integers)
        self.features: Tensor
        self.position: Tensor
        self.filled: Tensor
        self.register_buffer("features", torch.zeros(size, dim))
        self.register_buffer("position", torch.zeros((), dtype=torch.int64))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))
        for name in self._names:
            self.register_buffer(f"integers_{name}", torch.full((size,), -1, dtype=torch.int64))

    def __len__(self) -> int:
        return int(self.filled)

    @property
    def rows(self) -> Tensor:
        """``(len(self), d)`` rows written so far, in no particular order; a copy that later pushes do not change."""
        return self.features[: len(self)].clone()

    def integers(self, name: str) -> Tensor:
        """``(len(self),)`` integers of that name, in the order of `rows`."""
        if name not in self._names:
            raise ValueError(f"the queue keeps {', '.join(self._names) or 'no integers'}, got {name!r}")
        return self.get_buffer(f"integers_{name}")[: len(self)].clone()

    @torch.no_grad()
    def push(self, rows: Tensor, **integers: Tensor) -> None:
        """Write ``(B, d)`` rows over the oldest ones; of more rows than fit, the last M stay."""
        if rows.dim() != 2 or rows.shape[1] != self.features.shape[1]:
            raise ValueError(f"rows must have shape (rows, {self.features.shape[1]}), got shape {tuple(rows.shape)}")
        if set(integers) != set(self._names):
            raise ValueError(f"push needs {sorted(self._names)} beside the rows, got {sorted(integers)}")
        for name, values in integers.items():
            if values.shape != rows.shape[:1]:
                raise ValueError(f"{name} must have shape ({rows.shape[0]},), got shape {tuple(values.shape)}")
        count = min(rows.shape[0], self.size)
        start = int(self.position) + rows.shape[0] - count
        places = (start + torch.arange(count, device=self.features.device)) % self.size
        kept = slice(rows.shape[0] - count, None)
        self.features[places] = normalize_rows(rows[kept].detach()).to(self.features)
        for name, values in integers.items():
            buffer = self.get_buffer(f"integers_{name}")
            buffer[places] = values[kept].to(buffer)
        self.position.fill_((start + count) % self.size)
        self.filled.fill_(min(len(self) + rows.shape[0], self.size))

    def extra_repr(self) -> str:
        return f"size={self.size}, dim={self.features.shape[1]}, integers={self._names}"


class EMAEncoder(nn.Module):
    r"""A slowly moving copy of an encoder, whose outputs carry no gradient.

    .. math:: \theta_k \leftarrow m\, \theta_k + (1 - m)\, \theta_q

    Buffers are copied. Call `update` before encoding keys. Only the copy belongs to this module: its state dictionary
    does not hold the online encoder a second time.

    Args:
        encoder: the online encoder; copied.
        momentum: m in [0, 1].

    Raises:
        ValueError: momentum out of range, or an encoder with other parameters.

    >>> import torch
    >>> online = torch.nn.Linear(2, 2)
    >>> slow = EMAEncoder(online, momentum=0.9)
    >>> slow.update(online)
    >>> slow(torch.ones(1, 2)).requires_grad
    False
    """

    def __init__(self, encoder: nn.Module, momentum: float = 0.999) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(encoder).requires_grad_(False)
        self.momentum = _momentum(momentum)

    @torch.no_grad()
    def update(self, encoder: nn.Module, momentum: float | None = None) -> None:
        """Move towards ``encoder``, by ``momentum`` instead of the usual one where given (for schedules)."""
        keep = self.momentum if momentum is None else _momentum(momentum)
        online = dict(encoder.named_parameters())
        for name, slow in self.encoder.named_parameters():
            if name not in online or online[name].shape != slow.shape:
                raise ValueError(f"encoder must have the parameters of the copied one, {name} is missing or differs")
            slow.lerp_(online[name].to(slow), 1.0 - keep)
        buffers = dict(encoder.named_buffers())
        for name, slow_buffer in self.encoder.named_buffers():
            slow_buffer.copy_(buffers[name])

    @torch.no_grad()
    def forward(self, *inputs: Any, **options: Any) -> Any:
        return self.encoder(*inputs, **options)

    def extra_repr(self) -> str:
        return f"momentum={self.momentum}"


class PerSampleState(nn.Module):
    """Named numbers, one for each sample of the data set, addressed by sample id.

    The state may live on another device than the ids (keep a large one on the CPU): what is read comes to the device of
    the ids.

    Args:
        num_samples: n.
        initial: name to initial value.
        dtype: of the vectors; the default floating type.

    Raises:
        ValueError: no samples, or a name that is not kept.
        IndexError: ids outside ``0 .. n - 1``.

    Complexity: O(n) memory a name, O(B) a visit.

    >>> import torch
    >>> state = PerSampleState(4, {"loss": 0.0})
    >>> state.write(torch.tensor([1, 3]), loss=torch.tensor([0.5, 0.25]))
    >>> state.read(torch.tensor([3, 0]), "loss")
    tensor([0.2500, 0.0000])
    """

    def __init__(self, num_samples: int, initial: Mapping[str, float], *, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        if num_samples < 1 or not initial:
            raise ValueError(f"num_samples and names must not be empty, got {num_samples} and {sorted(initial)}")
        self.num_samples = num_samples
        self.names = tuple(initial)
        for name, value in initial.items():
            start = torch.full((num_samples,), value, dtype=dtype or torch.get_default_dtype())
            self.register_buffer(f"state_{name}", start)

    def vector(self, name: str) -> Tensor:
        """The whole ``(n,)`` vector of a name, not a copy."""
        if name not in self.names:
            raise ValueError(f"the state keeps {', '.join(self.names)}, got {name!r}")
        return self.get_buffer(f"state_{name}")

    def read(self, ids: Tensor, name: str) -> Tensor:
        """``(B,)`` values of the samples ``ids``."""
        vector = self.vector(name)
        return vector[self._places(ids, vector)].to(ids.device)

    @torch.no_grad()
    def write(self, ids: Tensor, **values: Tensor) -> None:
        """Set values of the samples ``ids``; all others keep theirs. Repeated ids must carry equal values."""
        for name, new in values.items():
            vector = self.vector(name)
            if new.shape != ids.shape:
                raise ValueError(f"{name} must have shape {tuple(ids.shape)}, got shape {tuple(new.shape)}")
            vector[self._places(ids, vector)] = new.detach().to(vector)

    def _places(self, ids: Tensor, vector: Tensor) -> Tensor:
        if ids.dim() != 1 or ids.dtype.is_floating_point or ids.dtype == torch.bool:
            raise ValueError(f"ids must be a vector of integers, got shape {tuple(ids.shape)} of {ids.dtype}")
        if ids.numel() > 0:
            low, high = (int(bound) for bound in torch.aminmax(ids))
            if low < 0 or high >= self.num_samples:
                raise IndexError(f"ids holds {low if low < 0 else high}, outside 0 .. {self.num_samples - 1}")
        return ids.long().to(vector.device)

    def extra_repr(self) -> str:
        return f"num_samples={self.num_samples}, names={self.names}"


class ClusterState(nn.Module):
    """Cluster of every sample and the centroids, refreshed by k-means every so many epochs.

    The same seed and embeddings give the same clusters; each refresh starts from the centroids of the last one.

    Args:
        num_samples: n.
        num_clusters: K, at most n.
        dim: d.
        refresh_every: epochs between refreshes.
        seed: of the first k-means.

    Raises:
        ValueError: sizes out of range, or embeddings of another shape.

    Complexity: O(n + K d) memory; a refresh is O(n K d) an iteration.

    >>> import torch
    >>> state = ClusterState(4, 2, 1, refresh_every=5)
    >>> state.due(0)
    True
    >>> state.refresh(torch.tensor([[0.0], [0.1], [5.0], [5.1]]), epoch=0)
    >>> bool(state.assignments[0] == state.assignments[1] != state.assignments[2]), state.due(4), state.due(5)
    (True, False, True)
    """

    def __init__(self, num_samples: int, num_clusters: int, dim: int, *, refresh_every: int = 1, seed: int = 0) -> None:
        super().__init__()
        if not 1 <= num_clusters <= num_samples:
            raise ValueError(f"num_clusters must lie in 1 .. {num_samples} (num_samples), got {num_clusters}")
        if refresh_every < 1 or dim < 1:
            raise ValueError(f"refresh_every and dim must be at least 1, got {refresh_every} and {dim}")
        self.refresh_every = refresh_every
        self.seed = seed
        self.assignments: Tensor
        self.centroids: Tensor
        self.last_refresh: Tensor
        self.register_buffer("assignments", torch.full((num_samples,), -1, dtype=torch.int64))
        self.register_buffer("centroids", torch.zeros(num_clusters, dim))
        self.register_buffer("last_refresh", torch.full((), -1, dtype=torch.int64))

    def due(self, epoch: int) -> bool:
        """Whether a refresh is due in this epoch; always before the first one."""
        last = int(self.last_refresh)
        return last < 0 or epoch >= last + self.refresh_every

    @torch.no_grad()
    def refresh(self, embeddings: Tensor, epoch: int) -> None:
        """Cluster ``(n, d)`` embeddings with k-means."""
        from sklearn.cluster import KMeans

        num_clusters = self.centroids.shape[0]
        self._check("embeddings", embeddings, self.assignments.shape[0])
        rows = embeddings.detach().to("cpu", torch.float64).numpy()
        warm = int(self.last_refresh) >= 0
        start = self.centroids.to("cpu", torch.float64).numpy() if warm else "k-means++"
        found = KMeans(num_clusters, init=start, n_init=1 if warm else 10, random_state=self.seed).fit(rows)
        self.set(torch.from_numpy(found.labels_).long(), torch.from_numpy(found.cluster_centers_), epoch)

    @torch.no_grad()
    def set(self, assignments: Tensor, centroids: Tensor, epoch: int) -> None:
        """Take ``(n,)`` clusters and ``(K, d)`` centroids that were computed elsewhere."""
        self._check("centroids", centroids, self.centroids.shape[0])
        if assignments.shape != self.assignments.shape:
            raise ValueError(
                f"assignments must have shape {tuple(self.assignments.shape)}, got shape {tuple(assignments.shape)}"
            )
        self.assignments.copy_(assignments)
        self.centroids.copy_(centroids)
        self.last_refresh.fill_(epoch)

    @torch.no_grad()
    def assign(self, embeddings: Tensor) -> Tensor:
        """``(m,)`` nearest centroid of each of ``(m, d)`` embeddings."""
        return pair_topk(embeddings, self.centroids.to(embeddings), 1, similarity="sqeuclidean").indices[:, 0]

    def _check(self, name: str, value: Tensor, rows: int) -> None:
        expected = (rows, self.centroids.shape[1])
        if tuple(value.shape) != expected:
            raise ValueError(f"{name} must have shape {expected}, got shape {tuple(value.shape)}")

    def extra_repr(self) -> str:
        samples, clusters = self.assignments.shape[0], self.centroids.shape[0]
        return f"num_samples={samples}, num_clusters={clusters}, refresh_every={self.refresh_every}, seed={self.seed}"


class Prototypes(nn.Module):
    r"""Unit vectors that stand for clusters or classes: learned by gradient, or moved by averaging.

    Args:
        num_prototypes: K.
        dim: d.
        learnable: True makes them a parameter (SwAV), False a buffer for `update` (PALM).
        momentum: m of `update`.
        generator: draws the initial directions.

    Raises:
        ValueError: sizes or momentum out of range.

    Shapes: ``forward()`` gives ``(K, d)`` unit rows.

    >>> import torch
    >>> prototypes = Prototypes(3, 4, generator=torch.Generator().manual_seed(0))
    >>> prototypes().norm(dim=1)
    tensor([1.0000, 1.0000, 1.0000], grad_fn=<LinalgVectorNormBackward0>)
    """

    def __init__(
        self,
        num_prototypes: int,
        dim: int,
        *,
        learnable: bool = True,
        momentum: float = 0.999,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if num_prototypes < 1 or dim < 1:
            raise ValueError(f"num_prototypes and dim must be at least 1, got {num_prototypes} and {dim}")
        self.momentum = _momentum(momentum)
        start = normalize_rows(torch.randn(num_prototypes, dim, generator=generator))
        self.weight: Tensor
        if learnable:
            self.weight = nn.Parameter(start)
        else:
            self.register_buffer("weight", start)

    def forward(self) -> Tensor:
        return normalize_rows(self.weight)

    @torch.no_grad()
    def normalize(self) -> None:
        """Put the stored vectors back on the sphere (after an optimiser step)."""
        self.weight.copy_(normalize_rows(self.weight))

    @torch.no_grad()
    def update(self, features: Tensor, weights: Tensor) -> None:
        r"""Move towards weighted sums of features: ``c_k <- n(m c_k + (1 - m) sum_i w_ik f_i)``.

        Args:
            features: ``(N, d)``.
            weights: ``(N, K)``; a prototype whose column is zero stays.
        """
        if weights.shape != (features.shape[0], self.weight.shape[0]):
            raise ValueError(
                f"weights must have shape ({features.shape[0]}, {self.weight.shape[0]}), "
                f"got shape {tuple(weights.shape)}"
            )
        target = (weights.T @ features).to(self.weight)
        moved = normalize_rows(self.momentum * self.weight + (1.0 - self.momentum) * target)
        used = (weights != 0).any(dim=0)
        self.weight.copy_(torch.where(used[:, None], moved, self.weight))

    def extra_repr(self) -> str:
        learnable = isinstance(self.weight, nn.Parameter)
        return f"num_prototypes={self.weight.shape[0]}, dim={self.weight.shape[1]}, learnable={learnable}"


def _momentum(value: float) -> float:
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"momentum must lie in 0 .. 1, got {value}")
    return value
