"""Features averaged over neighbourhoods by a fixed filter: what a graph says before anything is learned."""

from __future__ import annotations

from torch import Tensor

from graphcl.kernels import SparseMatrix, spmm

__all__ = ["smooth_features"]


def smooth_features(x: Tensor, operator: SparseMatrix, steps: int = 2, *, restart: float = 0.0) -> Tensor:
    r"""Features after some steps of propagation, with or without return to the start.

    F. Wu et al., "Simplifying Graph Convolutional Networks", 2019, https://arxiv.org/abs/1902.07153 (no restart);
    J. Klicpera, A. Bojchevski, S. Günnemann, "Predict then Propagate: Graph Neural Networks meet Personalized
    PageRank", 2019, https://arxiv.org/abs/1810.05997 (with restart).

    .. math:: h^{(0)} = x, \quad h^{(t+1)} = (1 - \alpha) S h^{(t)} + \alpha x

    Args:
        x: ``(N, f)``.
        operator: S ``(N, N)``, for instance of `graphcl.kernels.normalize_symmetric` with self loops.
        steps: how many; 0 returns ``x``.
        restart: α in [0, 1].

    Returns:
        ``(N, f)``, differentiable in ``x`` and in the values of the operator.

    Raises:
        ValueError: steps below 0, or a restart outside [0, 1].

    Complexity: O(steps E f) time, O(N f) memory without gradients.

    Example:
        >>> import torch
        >>> from graphcl.kernels import normalize_symmetric
        >>> edge = SparseMatrix.from_edge_index(torch.tensor([[0, 1], [1, 0]]), num_nodes=2)
        >>> smooth_features(torch.tensor([[0.0], [2.0]]), normalize_symmetric(edge, self_loops=1.0), 1, restart=0.5)
        tensor([[0.5000],
                [1.5000]])
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
        raise ValueError(f"steps must be an integer of at least 0, got {steps!r}")
    if not 0 <= restart <= 1:
        raise ValueError(f"restart must lie in [0, 1], got {restart}")
    h = x
    for _ in range(steps):
        h = spmm(operator, h)
        if restart:
            h = (1 - restart) * h + restart * x
    return h
