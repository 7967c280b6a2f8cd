from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from graphcl.functional import info_nce, nt_xent
from graphcl.losses import CUA, CosineSchedule, InfoNCE, LinearSchedule, Loss, NTXent, Sum, Temperature, Term


def rows(seed: int, num: int = 5) -> Tensor:
    return torch.randn(num, 4, generator=torch.Generator().manual_seed(seed))


def test_mclrec_mixture() -> None:
    """Recommendation loss, views, learned views and their regulariser, with the weights of the published stage one."""

    def spread(x: Tensor, y: Tensor) -> Tensor:
        scores = x @ y.T
        return (scores.max(dim=1).values - scores.mean(dim=1)).mean()

    lam, beta = 0.1, 0.03
    contrast = NTXent(temperature=1.0, similarity="dot")
    pairs = (("z1", "z2"), ("h1", "z2"), ("h2", "z1"))
    mixture = Sum(
        recommendation=Term(nn.functional.cross_entropy, "logits", "target"),
        views=Term(contrast, "h1", "h2", weight=lam),
        **{f"learned_{a}_{b}": Term(contrast, a, b, weight=beta) for a, b in pairs},
        **{f"regularizer_{a}_{b}": Term(spread, a, b, weight=0.1 * beta) for a, b in pairs},
    )
    named = {name: rows(seed) for seed, name in enumerate(("h1", "h2", "z1", "z2", "logits"))}
    target = torch.tensor([0, 1, 2, 3, 0])
    total, parts = mixture(**named, target=target)

    def nce(a: str, b: str) -> Tensor:
        return nt_xent(named[a], named[b], temperature=1.0, similarity="dot")

    expected = nn.functional.cross_entropy(named["logits"], target) + lam * nce("h1", "h2")
    expected = expected + beta * sum(nce(a, b) + 0.1 * spread(named[a], named[b]) for a, b in pairs)
    assert torch.allclose(total, expected)
    assert torch.allclose(parts["learned_h1_z2"], nce("h1", "z2"))


def test_mmhcl_mixture() -> None:
    """Ranking of a sampled pair, weight decay, and one-way contrast of users and of items against both views."""

    def bpr(user: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        return nn.functional.softplus(((negative - positive) * user).sum(dim=1)).mean()

    contrast = NTXent(temperature=0.4, symmetric=False)
    mixture = Sum(
        ranking=Term(bpr, "user", "positive", "negative"),
        users=Term(contrast, "user", "user_hyper", weight=0.03),
        items=Term(contrast, "item", "item_hyper", weight=0.07),
    )
    names = ("user", "positive", "negative", "user_hyper", "item", "item_hyper")
    named = {name: rows(seed) for seed, name in enumerate(names)}
    total, parts = mixture(**named)

    def one_way(x: Tensor, y: Tensor) -> Tensor:
        x, y = nn.functional.normalize(x), nn.functional.normalize(y)
        across, within = x @ y.T / 0.4, (x @ x.T / 0.4).fill_diagonal_(-torch.inf)
        return (torch.logsumexp(torch.cat([across, within], dim=1), dim=1) - across.diagonal()).mean()

    assert torch.allclose(parts["users"], one_way(named["user"], named["user_hyper"]), atol=1e-6)
    items = one_way(named["item"], named["item_hyper"])
    assert torch.allclose(total, parts["ranking"] + 0.03 * parts["users"] + 0.07 * items, atol=1e-6)


def test_meow_mixture_with_a_loss_of_ones_own() -> None:
    """Weighted contrast, whose weights count the clusterings that tell two nodes apart, and prototypes."""

    class ClusterWeightedContrast(nn.Module):
        def __init__(self, temperature: float) -> None:
            super().__init__()
            self.temperature = temperature

        def forward(self, u: Tensor, v: Tensor, clusters: Tensor) -> Tensor:
            from graphcl.kernels import pair_logsumexp

            class Apart:
                def log_weight_tile(self, tile: object) -> Tensor:
                    ids, rows_, columns = clusters, tile.rows, tile.columns  # type: ignore[attr-defined]
                    return (ids[rows_, None] != ids[None, columns]).sum(dim=2).to(u.dtype).log()

            total = pair_logsumexp(u, v, temperature=self.temperature, rules=Apart()).logsumexp
            return (total - (u * v).sum(dim=1) / self.temperature).mean()

    def prototypes(u: Tensor, centroids: Tensor, clusters: Tensor) -> Tensor:
        return nn.functional.cross_entropy(u @ centroids.T, clusters[:, 0])

    mixture = Sum(
        nodes=Term(ClusterWeightedContrast(0.5), "u", "v", "clusters"),
        prototypes=Term(prototypes, "u", "centroids", "clusters", weight=0.2),
    )
    u, v, centroids = rows(0), rows(1), rows(2, 3)
    clusters = torch.tensor([[0, 1], [0, 0], [1, 1], [2, 0], [2, 2]])
    total, parts = mixture(u=u, v=v, clusters=clusters, centroids=centroids)
    weight = 2 - (clusters[:, None] == clusters[None]).sum(dim=2)
    potential = torch.exp(u @ v.T / 0.5)
    expected = -torch.log(potential.diagonal() / (weight * potential).sum(dim=1)).mean()
    assert torch.allclose(parts["nodes"], expected, atol=1e-5)
    assert torch.allclose(total, expected + 0.2 * prototypes(u, centroids, clusters), atol=1e-5)


def test_parts_of_terms_and_of_inner_sums_are_prefixed() -> None:
    class WithParts(nn.Module):
        def forward(self, z1: Tensor, z2: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
            output = CUA()(z1, z2, return_components=True)
            assert isinstance(output, tuple)
            return output

    inner = Sum(gap=Term(WithParts(), "a", "b", weight=2.0), plain=Term(InfoNCE(), "a", "b"))
    outer = Sum(
        mixed=Term(inner, options={"a": "x", "b": "y"}, weight=0.5),
        direct=Term(InfoNCE(), "x", "y", options={"ids": "names"}),
    )
    x, y, names = rows(0), rows(1), torch.tensor([0, 0, 1, 2, 3])
    total, parts = outer(x=x, y=y, names=names)
    assert set(parts) == {
        "mixed",
        "direct",
        "mixed/gap",
        "mixed/plain",
        "mixed/gap/info_nce",
        "mixed/gap/uniformity",
        "mixed/gap/alignment",
    }
    assert torch.allclose(parts["direct"], info_nce(x, y, ids=names))
    assert torch.allclose(parts["mixed"], 2 * parts["mixed/gap"] + parts["mixed/plain"])
    assert torch.allclose(total, 0.5 * parts["mixed"] + parts["direct"])


def test_schedules_follow_the_step_which_is_part_of_the_state() -> None:
    def build() -> Sum:
        inner = Sum(one=Term(InfoNCE(), "x", "y", weight=CosineSchedule(1.0, 0.0, steps=4)))
        return Sum(
            ramp=Term(InfoNCE(), "x", "y", weight=LinearSchedule(0.0, 1.0, steps=2, delay=1)),
            inner=Term(inner, options={"x": "x", "y": "y"}),
        )

    x, y = rows(0), rows(1)
    single = info_nce(x, y)
    total = build()
    weights = []
    for _ in range(5):
        weights.append((total(x=x, y=y)[0] / single).item())
        total.advance()
    assert weights == pytest.approx([0.0 + 1.0, 0.0 + 0.853553, 0.5 + 0.5, 1.0 + 0.146447, 1.0 + 0.0], abs=1e-5)
    halfway, resumed = build(), build()
    halfway.advance()
    resumed.load_state_dict(halfway.state_dict())
    assert torch.equal(resumed(x=x, y=y)[0], halfway(x=x, y=y)[0])
    assert not torch.equal(resumed(x=x, y=y)[0], build()(x=x, y=y)[0])


def test_state_of_the_terms_belongs_to_the_sum() -> None:
    mixture = Sum(one=Term(InfoNCE(Temperature(0.2, learnable=True)), "x", "y"))
    assert [name for name, _ in mixture.named_parameters()] == ["terms.term_one.loss.temperature.log_temperature"]
    mixture(x=rows(0), y=rows(1))[0].backward()
    assert all(parameter.grad is not None for parameter in mixture.parameters())


def test_functions_and_modules_are_losses() -> None:
    assert isinstance(info_nce, Loss)
    assert isinstance(NTXent(), Loss)
    assert not isinstance(3, Loss)


def test_sum_names_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="at least one term"):
        Sum()
    with pytest.raises(TypeError, match="one must be a Term, got InfoNCE"):
        Sum(one=InfoNCE())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"names of terms must not hold '/' or '\.', got 'a/b'"):
        Sum(**{"a/b": Term(InfoNCE(), "x")})
    with pytest.raises(TypeError, match="loss must be callable, got int"):
        Term(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="the loss needs y, got x"):
        Sum(one=Term(InfoNCE(), "x", "y"))(x=rows(0))
    with pytest.raises(ValueError, match="steps must be at least 1 and delay at least 0, got 0 and 0"):
        LinearSchedule(0.0, 1.0, steps=0)
    with pytest.raises(ValueError, match="steps must be at least 1 and delay at least 0, got 3 and -1"):
        CosineSchedule(0.0, 1.0, steps=3, delay=-1)
