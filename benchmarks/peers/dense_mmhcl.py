"""Plain dense transcription of MMHCL's training loss, user branch, for `benchmarks/collaborative_speed.py`.

It follows the public code: torch sparse tensors for propagation, the user-user matrix R R^T held as it is, and the
contrastive loss by whole similarity matrices. Nothing of graphcl is used, so that the two can be compared.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def normalized_adjacency(users: Tensor, items: Tensor, num_users: int, num_items: int) -> Tensor:
    """``D^-1/2 [[0, R], [R^T, 0]] D^-1/2`` as a torch sparse tensor."""
    size = num_users + num_items
    index = torch.cat([torch.stack([users, items + num_users]), torch.stack([items + num_users, users])], dim=1)
    degree = torch.bincount(index[0], minlength=size).float()
    values = (degree[index[0]] * degree[index[1]]).rsqrt()
    return torch.sparse_coo_tensor(index, values, (size, size)).coalesce()


def user_user(users: Tensor, items: Tensor, num_users: int, num_items: int) -> Tensor:
    """Row-normalised ``R R^T`` without its diagonal, formed densely as the public code does, kept sparse."""
    ratings = torch.zeros(num_users, num_items)
    ratings[users, items] = 1.0
    shared = ratings @ ratings.T
    shared.fill_diagonal_(0.0)
    sums = shared.sum(1, keepdim=True)
    return torch.where(sums > 0, shared / sums.clamp(min=1e-12), 0.0).to_sparse()


def contrastive(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """``mean_a -log( e^{c(z1_a, z2_a)/t} / (sum_b e^{c(z1_a, z2_b)/t} + sum_{b != a} e^{c(z1_a, z1_b)/t}) )``."""
    first, second = functional.normalize(first), functional.normalize(second)
    within = torch.exp(first @ first.T / temperature)
    between = torch.exp(first @ second.T / temperature)
    positive = between.diag()
    return -torch.log(positive / (within.sum(1) + between.sum(1) - within.diag())).mean()


class DenseMMHCL(nn.Module):
    """User branch of MMHCL: two first-order layers, three second-order layers, TikTok's hyper-parameters."""

    def __init__(self, users: Tensor, items: Tensor, num_users: int, num_items: int, hidden: int = 64) -> None:
        super().__init__()
        self.num_users = num_users
        self.user, self.item, self.second = (
            nn.Parameter(nn.init.xavier_uniform_(torch.empty(rows, hidden)))
            for rows in (num_users, num_items, num_users)
        )
        self.adjacency = normalized_adjacency(users, items, num_users, num_items)
        self.user_user = user_user(users, items, num_users, num_items)

    def forward(self) -> tuple[Tensor, Tensor, Tensor]:
        """Fused users, items, and the users' second-order part."""
        layers = [torch.cat([self.user, self.item])]
        for _ in range(2):
            layers.append(torch.sparse.mm(self.adjacency, layers[-1]))
        mean = torch.stack(layers).mean(0)
        second: Tensor = self.second
        for _ in range(3):
            second = torch.sparse.mm(self.user_user, second)
        return mean[: self.num_users] + functional.normalize(second), mean[self.num_users :], second

    def loss(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        """BPR, squared rows, and 0.03 times the contrast of all users at temperature 0.6."""
        all_users, all_items, second = self()
        u, p, n = all_users[users], all_items[positives], all_items[negatives]
        ranking = -functional.logsigmoid((u * p).sum(1) - (u * n).sum(1)).mean()
        squares = 0.5 * (u.square().sum() + p.square().sum() + n.square().sum()) / users.shape[0]
        return ranking + 1e-3 * squares + 0.03 * contrastive(all_users, second, 0.6)
