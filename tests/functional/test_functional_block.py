"""Block InfoNCE against loops that go through every cluster, and against the exact loss; PamC against loops."""

from __future__ import annotations

import functools
import inspect
import math
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from graphcl.functional import block_info_nce, info_nce, meta_node_repulsion, neighbor_attraction, nt_xent, pamc
from graphcl.functional.block import BlockCorrection
from graphcl.kernels import Similarity, SparseMatrix, normalize_rows
from graphcl.losses import BlockInfoNCE, PamC

CORRECTIONS: tuple[BlockCorrection, ...] = get_args(BlockCorrection)
NUM, DIM, CLUSTERS = 11, 4, 4
IDS = torch.tensor([0, 0, 1, 2, 3, 3, 3, 4, 5, 6, 7])
HARD = torch.tensor([0, 1, 1, 3, 0, 0, 3, 1, 1, 0, 3])  # cluster 2 is empty


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def similarity_of(x: Tensor, y: Tensor, similarity: Similarity) -> Tensor:
    if similarity == "cosine":
        return normalize_rows(x) @ normalize_rows(y).T
    return x @ y.T if similarity == "dot" else -(torch.cdist(x, y) ** 2)


def slow(
    x: Tensor,
    y: Tensor,
    weights: Tensor,
    correction: BlockCorrection,
    temperature: float,
    *,
    keys: Tensor | None = None,
    ids: Tensor | None = None,
    key_ids: Tensor | None = None,
) -> Tensor:
    """Losses of the anchors on cosines: for every anchor and cluster, weighted mean and variance of the logits."""
    x, y = normalize_rows(x), normalize_rows(y)
    candidates = y if keys is None else normalize_rows(keys)
    losses = []
    for i in range(x.shape[0]):
        terms = []
        for k in range(weights.shape[1]):
            share = weights[:, k].clone()
            for j in range(candidates.shape[0]):
                if ids is not None and key_ids is not None:
                    if ids[i] == key_ids[j]:
                        share[j] = 0
                elif keys is None and i == j:
                    share[j] = 0
            mass = share.sum()
            if mass < 1e-12:
                continue
            mean = (share[:, None] * candidates).sum(0) / mass
            centred = candidates - mean
            if correction == "none":
                variance = torch.zeros((), dtype=x.dtype)
            elif correction == "full":
                variance = (share * (centred @ x[i]) ** 2).sum() / mass
            else:
                variance = ((share[:, None] * centred**2).sum(0) / mass * x[i] ** 2).sum()
            terms.append(mass.log() + x[i] @ mean / temperature + variance / (2 * temperature**2))
        positive = x[i] @ y[i] / temperature
        losses.append(torch.logsumexp(torch.stack([*terms, positive]), 0) - positive)
    return torch.stack(losses)


def one_hot() -> Tensor:
    return torch.nn.functional.one_hot(HARD, CLUSTERS).double()


@pytest.mark.parametrize("correction", CORRECTIONS)
@pytest.mark.parametrize("form", ["hard", "one hot", "soft", "ids", "keys", "keys with ids", "soft keys"])
def test_value_and_gradient_against_loops(form: str, correction: BlockCorrection) -> None:
    x, y, keys = (drawn(seed, NUM, DIM).requires_grad_() for seed in range(3))
    soft = drawn(3, NUM, CLUSTERS).softmax(1)
    upstream = drawn(4, NUM)
    options: dict[str, Any] = {"temperature": 0.4, "correction": correction}
    weights, assignment = {"one hot": (one_hot(), one_hot()), "soft": (soft, soft), "soft keys": (soft, soft)}.get(
        form, (one_hot(), HARD)
    )
    extra: dict[str, Any] = {}
    if "keys" in form:
        extra["keys"] = keys
    if form == "ids":
        extra["ids"] = IDS
    if form == "keys with ids":
        extra |= {"ids": IDS, "key_ids": IDS.flip(0)}
    fast = block_info_nce(x, y, assignment, num_clusters=CLUSTERS, reduction="none", **options, **extra)
    if form == "ids":
        extra["key_ids"] = IDS
    expected = slow(x, y, weights, correction, 0.4, **extra)
    torch.testing.assert_close(fast, expected, rtol=1e-10, atol=1e-12)
    leaves = [x, y, keys] if "keys" in form else [x, y]
    for own, wanted in zip(
        torch.autograd.grad((fast * upstream).sum(), leaves),
        torch.autograd.grad((expected * upstream).sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(own, wanted, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("similarity", get_args(Similarity))
@pytest.mark.parametrize("correction", CORRECTIONS)
@pytest.mark.parametrize("symmetric", [False, True])
def test_clusters_of_one_row_are_exact(similarity: Similarity, correction: BlockCorrection, symmetric: bool) -> None:
    x, y = drawn(0, NUM, DIM), drawn(1, NUM, DIM)
    exact = info_nce(x, y, similarity=similarity, symmetric=symmetric, temperature=0.5)
    for assignment in (torch.arange(NUM), torch.eye(NUM, dtype=torch.float64)):
        block = block_info_nce(
            x, y, assignment, similarity=similarity, symmetric=symmetric, correction=correction, temperature=0.5
        )
        torch.testing.assert_close(block, exact, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_gradients_of_weights_and_temperature(correction: BlockCorrection) -> None:
    weights = torch.rand(6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def loss(x: Tensor, y: Tensor, temperature: Tensor, scores: Tensor) -> Tensor:
        losses = block_info_nce(
            x, y, scores.softmax(1), temperature=temperature, correction=correction, reduction="none", memory_budget=512
        )
        return (losses * weights).sum()

    def hard_loss(x: Tensor, y: Tensor, temperature: Tensor) -> Tensor:
        losses = block_info_nce(
            x, y, HARD[:6], temperature=temperature, correction=correction, symmetric=True, reduction="none"
        )
        return (losses * weights.repeat(2)).sum()

    inputs = [drawn(0, 6, 3), drawn(1, 6, 3), drawn(2, 6).exp(), drawn(3, 6, 2)]
    leaves = [value.requires_grad_() for value in inputs]
    assert torch.autograd.gradcheck(loss, leaves)
    assert torch.autograd.gradcheck(hard_loss, leaves[:3])


def logit_span(x: Tensor, y: Tensor, assignment: Tensor, temperature: float) -> Tensor:
    """Widest range of an anchor's logits within one cluster."""
    logits = normalize_rows(x) @ normalize_rows(y).T / temperature
    members = [logits[:, assignment == cluster] for cluster in range(int(assignment.max()) + 1)]
    spans = [block.amax(1) - block.amin(1) for block in members]
    return torch.stack(spans).amax(0)


def clustered(spread: float, num: int = 240, dim: int = 8, clusters: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    assignment = torch.arange(num) % clusters
    centres = normalize_rows(drawn(0, clusters, dim))
    y = centres[assignment] + spread * drawn(1, num, dim) / math.sqrt(dim)
    return y + 0.1 * drawn(2, num, dim) / math.sqrt(dim), y, assignment


@pytest.mark.parametrize("spread", [0.02, 0.2, 1.0, 100.0])  # from points to rows that know nothing of clusters
@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_error_bounds(spread: float, temperature: float) -> None:
    x, y, assignment = clustered(spread)
    exact = info_nce(x, y, temperature=temperature, reduction="none")
    span = logit_span(x, y, assignment, temperature)
    first = exact - block_info_nce(x, y, assignment, temperature=temperature, reduction="none")
    assert bool((first >= -1e-12).all())
    assert bool((first <= span**2 / 8 + 1e-12).all())
    full = exact - block_info_nce(x, y, assignment, temperature=temperature, correction="full", reduction="none")
    assert bool((full.abs() <= span**3 / (36 * math.sqrt(3)) + 1e-12).all())


def test_second_order_is_closer_where_clusters_are_loose() -> None:
    for spread in (0.2, 100.0):
        x, y, assignment = clustered(spread, dim=16)
        exact = info_nce(x, y, temperature=0.3)
        error = {
            correction: abs(float(exact - block_info_nce(x, y, assignment, temperature=0.3, correction=correction)))
            for correction in CORRECTIONS
        }
        assert error["full"] < 0.2 * error["none"]
        assert error["full"] < 0.05
        if spread == 100.0:
            assert error["diagonal"] < 0.5 * error["none"]


def test_error_falls_as_clusters_multiply() -> None:
    x, y, _ = clustered(0.2)
    order = (normalize_rows(y) @ drawn(5, 8)).argsort()
    exact = info_nce(x, y, temperature=0.2)
    errors = []
    for clusters in (1, 8, 60, 240):
        assignment = torch.empty(240, dtype=torch.int64)
        assignment[order] = torch.arange(240) * clusters // 240
        errors.append(float(exact - block_info_nce(x, y, assignment, temperature=0.2)))
    assert errors == sorted(errors, reverse=True)
    assert abs(errors[-1]) < 1e-12


def test_detached_clusters_keep_the_gradient_of_the_positive() -> None:
    x, y = drawn(0, NUM, DIM).requires_grad_(), drawn(1, NUM, DIM).requires_grad_()
    kept = block_info_nce(x, y, HARD)
    detached = block_info_nce(x, y, HARD, detach_clusters=True)
    torch.testing.assert_close(kept, detached)
    torch.testing.assert_close(torch.autograd.grad(detached, x)[0], torch.autograd.grad(kept, x)[0])
    z = y.detach()
    positive = block_info_nce(x, z + 0 * y, HARD, detach_clusters=True)
    assert bool((torch.autograd.grad(positive, y)[0] == 0).all())
    fresh = block_info_nce(x, y, HARD, detach_clusters=True)
    assert bool((torch.autograd.grad(fresh, y)[0] != 0).any())


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_degenerate_inputs_are_finite(correction: BlockCorrection) -> None:
    def check(x: Tensor, y: Tensor, assignment: Tensor, temperature: float = 0.1) -> Tensor:
        x, y = x.clone().requires_grad_(), y.clone().requires_grad_()
        loss = block_info_nce(x, y, assignment, temperature=temperature, correction=correction, num_clusters=3)
        gradients = torch.autograd.grad(loss, [x, y])
        assert bool(loss.isfinite())
        assert all(bool(gradient.isfinite().all()) for gradient in gradients)
        return loss

    x, y = drawn(0, 6, 3), drawn(1, 6, 3)
    ids = torch.tensor([0, 0, 1, 1, 1, 1])
    soft = torch.nn.functional.one_hot(ids, 3).double()
    for assignment in (ids, soft):
        assert float(check(x[:0], y[:0], assignment[:0])) == 0
        assert float(check(x[:1], y[:1], assignment[:1])) == 0
        assert float(check(x[:1].expand(6, 3), x[:1].expand(6, 3), assignment)) == pytest.approx(math.log(6))
        check(torch.zeros(6, 3, dtype=torch.float64), y, assignment)
        check(x, y, assignment, temperature=1e-3)
    all_equal = block_info_nce(x, y, ids, ids=torch.zeros(6, dtype=torch.int64), correction=correction)
    assert float(all_equal) == 0


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_float32_and_half(correction: BlockCorrection) -> None:
    x, y, assignment = clustered(0.3)
    wide = block_info_nce(x, y, assignment, temperature=0.2, correction=correction)
    narrow = block_info_nce(x.float(), y.float(), assignment, temperature=0.2, correction=correction)
    half = block_info_nce(x.bfloat16(), y.bfloat16(), assignment, temperature=0.2, correction=correction)
    assert narrow.dtype == half.dtype == torch.float32
    assert float(narrow) == pytest.approx(float(wide), abs=1e-4)
    assert float(half) == pytest.approx(float(wide), abs=5e-2)


def test_weights_and_permutation() -> None:
    x, y = drawn(0, NUM, DIM), drawn(1, NUM, DIM)
    weight = torch.arange(NUM).double()
    losses = block_info_nce(x, y, HARD, reduction="none")
    assert float(block_info_nce(x, y, HARD, weight=weight)) == pytest.approx(float((losses * weight).sum() / 55))
    order = torch.randperm(NUM, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(block_info_nce(x[order], y[order], HARD[order], reduction="none"), losses[order])


def test_refusals() -> None:
    x, y = drawn(0, 4, 3), drawn(1, 4, 3)
    ids = torch.tensor([0, 0, 1, 1])
    with pytest.raises(ValueError, match="correction must be 'none', 'diagonal' or 'full', got 'third'"):
        block_info_nce(x, y, ids, correction="third")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"assignment must have shape \(4,\)"):
        block_info_nce(x, y, ids[:3])
    with pytest.raises(ValueError, match=r"assignment must have shape \(4, clusters\)"):
        block_info_nce(x, y, torch.rand(3, 2))
    with pytest.raises(ValueError, match="ids need hard clusters"):
        block_info_nce(x, y, torch.rand(4, 2), ids=ids)
    with pytest.raises(IndexError, match="assignment holds -1"):
        block_info_nce(x, y, ids - 1)
    with pytest.raises(ValueError, match="with keys call once a direction"):
        block_info_nce(x, y, ids, keys=y, symmetric=True)
    with pytest.raises(ValueError, match="got only ids"):
        block_info_nce(x, y, ids, keys=y, ids=ids)
    with pytest.raises(ValueError, match="key_ids belong to keys"):
        block_info_nce(x, y, ids, key_ids=ids)
    with pytest.raises(ValueError, match=r"edge_index must have shape \(2, edges\)"):
        pamc(x, ids, ids)
    with pytest.raises(ValueError, match=r"edge_weight must be above 0, got 0"):
        pamc(x, ids, torch.tensor([[0], [1]]), edge_weight=torch.zeros(1))


EDGES = torch.tensor([[0, 0, 1, 2, 3, 5, 5], [0, 1, 2, 3, 4, 0, 5]])
WEIGHTS = torch.tensor([0.5, 0.2, 1.0, 0.3, 0.7, 0.1, 2.0], dtype=torch.float64)


def slow_pamc(z: Tensor, shares: Tensor, temperature: float) -> Tensor:
    unit, nodes = normalize_rows(z), normalize_rows(shares.T @ z)
    near = []
    for i in range(z.shape[0]):
        terms = [
            w * torch.exp(unit[i] @ unit[j] * (i != j) / temperature)
            for (a, j), w in zip(EDGES.T.tolist(), WEIGHTS, strict=True)
            if a == i
        ]
        if terms:
            near.append(torch.stack(terms).sum().log())
    filled = [a for a in range(shares.shape[1]) if bool(shares[:, a].any())]
    far = [
        torch.stack([torch.exp(nodes[a] @ nodes[b] * (a != b) / temperature) for b in filled]).sum().log()
        for a in filled
    ]
    return torch.stack(far).mean() - torch.stack(near).mean()


@pytest.mark.parametrize("soft", [False, True])
def test_pamc_against_loops(soft: bool) -> None:
    z = drawn(0, 6, 3).requires_grad_()
    ids = torch.tensor([0, 0, 2, 2, 3, 3])
    shares = drawn(1, 6, 3).softmax(1) if soft else torch.nn.functional.one_hot(ids, 4).double()
    fast = pamc(z, shares if soft else ids, EDGES, edge_weight=WEIGHTS, temperature=0.5)
    expected = slow_pamc(z, shares, 0.5)
    assert isinstance(fast, Tensor)
    torch.testing.assert_close(fast, expected)
    torch.testing.assert_close(torch.autograd.grad(fast, z), torch.autograd.grad(expected, z))


def test_pamc_gradient_and_parts() -> None:
    ids = torch.tensor([0, 0, 2, 2, 3, 3])

    def loss(z: Tensor, edge_weight: Tensor) -> Tensor:
        value = pamc(z, ids, EDGES, edge_weight=edge_weight)
        assert isinstance(value, Tensor)
        return 0.7 * value

    assert torch.autograd.gradcheck(loss, [drawn(0, 6, 3).requires_grad_(), WEIGHTS.clone().requires_grad_()])
    total, parts = pamc(drawn(0, 6, 3), ids, EDGES, return_components=True)
    assert set(parts) == {"neighbors", "meta_nodes"}
    torch.testing.assert_close(total, parts["neighbors"] + parts["meta_nodes"])


def test_pamc_of_nothing_is_zero() -> None:
    empty = pamc(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), torch.zeros(2, 0, dtype=torch.int64))
    assert isinstance(empty, Tensor)
    assert float(empty) == 0


def test_modules_call_the_functions() -> None:
    x, y = drawn(0, NUM, DIM), drawn(1, NUM, DIM)
    module = BlockInfoNCE(0.3, correction="diagonal", symmetric=True, reduction="sum")
    expected = block_info_nce(x, y, HARD, temperature=0.3, correction="diagonal", symmetric=True, reduction="sum")
    torch.testing.assert_close(module(x, y, HARD), expected)
    value, parts = PamC(0.5, return_components=True)(drawn(0, 6, 3), HARD[:6], EDGES, WEIGHTS)
    torch.testing.assert_close(value, parts["neighbors"] + parts["meta_nodes"])
    torch.testing.assert_close(value, PamC(0.5)(drawn(0, 6, 3), HARD[:6], EDGES, WEIGHTS))


def signature_without(function: Any, *names: str) -> dict[str, inspect.Parameter]:
    return {name: value for name, value in inspect.signature(function).parameters.items() if name not in names}


def test_takes_the_place_of_info_nce() -> None:
    """With the clusters bound, every argument of the exact form has the same name, kind and default."""
    bound = functools.partial(block_info_nce, assignment=HARD)
    exact, block = signature_without(info_nce), signature_without(bound, "assignment")
    assert {name: (one.kind, one.default) for name, one in exact.items()}.items() <= {
        name: (one.kind, one.default) for name, one in block.items()
    }.items()
    x, y = drawn(0, NUM, DIM), drawn(1, NUM, DIM)
    own_clusters = functools.partial(block_info_nce, assignment=torch.arange(NUM))
    for objective in (info_nce, own_clusters):
        found = objective(x, y, temperature=0.3, similarity="dot", symmetric=True, reduction="none", backend="torch")
        torch.testing.assert_close(
            found, info_nce(x, y, temperature=0.3, similarity="dot", symmetric=True, reduction="none")
        )


def test_stands_in_for_nt_xent() -> None:
    first, second = drawn(0, NUM, DIM), drawn(1, NUM, DIM)
    rows, ids = torch.cat([first, second]), torch.arange(NUM).repeat(2)

    def block(assignment: Tensor) -> Tensor:
        twins = torch.cat([second, first])
        return block_info_nce(rows, twins, assignment, keys=rows, ids=ids, key_ids=ids, temperature=0.4)

    exact = nt_xent(first, second, temperature=0.4)
    torch.testing.assert_close(block(torch.arange(2 * NUM)), exact)
    assert 0 < float(exact - block(HARD.repeat(2))) < 0.5


def influence_of(num: int, columns: int, seed: int) -> SparseMatrix:
    generator = torch.Generator().manual_seed(seed)
    dense = torch.rand(num, columns, generator=generator, dtype=torch.float64)
    dense = dense * (torch.rand(num, columns, generator=generator) < 0.5)
    dense[1] = 0
    rows, at = dense.nonzero(as_tuple=True)
    return SparseMatrix.from_coo(rows, at, dense[rows, at], shape=(num, columns))


def slow_parts(z: Tensor, assignment: Tensor, graph: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Attraction of the anchors with entries, and repulsion of the filled clusters."""
    unit = normalize_rows(z)
    attraction = []
    for i in range(graph.shape[0]):
        terms = [
            graph[i, j] * (1.0 if i == j else torch.exp(unit[i] @ unit[j] / temperature))
            for j in range(graph.shape[1])
            if graph[i, j] > 0
        ]
        if terms:
            attraction.append(torch.stack([torch.as_tensor(term) for term in terms]).sum().log())
    weights = assignment if assignment.is_floating_point() else torch.nn.functional.one_hot(assignment).double()
    meta = [weights[:, k] @ z[: graph.shape[0]] for k in range(weights.shape[1]) if float(weights[:, k].sum()) > 0]
    repulsion = []
    for a, one in enumerate(meta):
        total = torch.ones((), dtype=z.dtype)
        for b, other in enumerate(meta):
            if a != b:
                total = total + torch.exp(one @ other / one.norm() / other.norm() / temperature)
        repulsion.append(total.log())
    return torch.stack(attraction), torch.stack(repulsion)


@pytest.mark.parametrize("anchors", [NUM, 5])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("listed", [False, True])
def test_pamc_and_its_parts_against_loops(anchors: int, soft: bool, listed: bool) -> None:
    z = drawn(0, NUM, DIM).requires_grad_()
    graph = influence_of(anchors, NUM, 1)
    assignment = drawn(2, anchors, 3).softmax(1) if soft else torch.tensor([0, 3, 3, 1, 0, 1, 1, 0, 3, 3, 0])[:anchors]
    edges, weights = torch.stack([graph.pattern.rows, graph.columns]), graph.entry_values()
    shuffle = torch.randperm(edges.shape[1], generator=torch.Generator().manual_seed(3))
    options: dict[str, Any] = {"num_anchors": anchors, "temperature": 0.6}
    if listed:
        options["edge_weight"] = weights[shuffle]
    found, parts = pamc(
        z, assignment, edges[:, shuffle] if listed else graph, num_clusters=None if soft else 5,
        return_components=True, **options,
    )  # fmt: skip
    attraction, repulsion = slow_parts(z, assignment, graph.to_dense(), 0.6)
    torch.testing.assert_close(parts["neighbors"], -attraction.mean())
    torch.testing.assert_close(parts["meta_nodes"], repulsion.mean())
    expected = repulsion.mean() - attraction.mean()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found, z)[0], torch.autograd.grad(expected, z)[0])
    own = neighbor_attraction(z, graph, num_anchors=anchors, temperature=0.6)
    assert float(own[1]) == -math.inf
    torch.testing.assert_close(own[own > -math.inf], attraction)
    negatives = meta_node_repulsion(z[:anchors], assignment, num_clusters=None if soft else 5, temperature=0.6)
    torch.testing.assert_close(negatives, repulsion)


def test_gradients_of_the_parts_of_pamc() -> None:
    upstream = drawn(4, NUM)
    graph = influence_of(6, NUM, 1)

    def attract(z: Tensor, values: Tensor) -> Tensor:
        sums = neighbor_attraction(z, graph.with_values(values), num_anchors=6, temperature=0.7)
        return (torch.where(sums > -math.inf, sums, 0.0) * upstream[:6]).sum()

    def repel(z: Tensor, scores: Tensor) -> Tensor:
        return (meta_node_repulsion(z, scores.softmax(1), temperature=0.7) * upstream[:3]).sum()

    z = drawn(0, NUM, DIM).requires_grad_()
    assert torch.autograd.gradcheck(attract, (z, graph.entry_values().clone().requires_grad_()))
    assert torch.autograd.gradcheck(repel, (z, drawn(1, NUM, 3).requires_grad_()))


def test_detached_meta_nodes_leave_the_pull_of_neighbours() -> None:
    z = drawn(0, NUM, DIM).requires_grad_()
    graph = influence_of(NUM, NUM, 1)
    loss, parts = pamc(z, HARD, graph, detach_meta_nodes=True, return_components=True)
    kept = pamc(z, HARD, graph)
    torch.testing.assert_close(loss, kept)
    assert not parts["meta_nodes"].requires_grad
    (own,) = torch.autograd.grad(loss, z, retain_graph=True)
    torch.testing.assert_close(own, torch.autograd.grad(parts["neighbors"], z)[0])


@pytest.mark.parametrize("soft", [False, True])
def test_pamc_is_finite_on_degenerate_inputs(soft: bool) -> None:
    """Zero rows, one cluster, clusters whose rows cancel, nodes without neighbours: no NaN in value or gradient."""
    graph = SparseMatrix.from_coo(torch.tensor([0, 1]), torch.tensor([1, 0]), shape=(4, 4))
    rows = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    for ids in (torch.zeros(4, dtype=torch.int64), torch.tensor([0, 0, 2, 2]), torch.tensor([2, 2, 2, 2])):
        z = rows.clone().requires_grad_()
        assignment = torch.nn.functional.one_hot(ids, 4).float() if soft else ids
        loss = pamc(z, assignment, graph, num_clusters=4)
        assert isinstance(loss, Tensor)
        assert bool(loss.isfinite())
        assert bool(torch.autograd.grad(loss, z)[0].isfinite().all())
    empty = torch.zeros(0, 2, requires_grad=True)
    nothing = pamc(empty, torch.zeros(0, dtype=torch.int64), torch.zeros(2, 0, dtype=torch.int64))
    assert isinstance(nothing, Tensor)
    assert nothing.item() == 0


def test_pamc_refusals() -> None:
    z, ids, graph = drawn(0, 4, 3), torch.tensor([0, 0, 1, 1]), influence_of(4, 4, 0)
    with pytest.raises(ValueError, match=r"num_anchors must lie in 0 \.\. 4 \(rows of z\), got 5"):
        pamc(z, ids, graph, num_anchors=5)
    with pytest.raises(ValueError, match="edge_weight belongs to listed pairs"):
        pamc(z, ids, graph, edge_weight=graph.entry_values())
    with pytest.raises(ValueError, match=r"edge_index must have shape \(3, 4\), got \(4, 4\)"):
        pamc(z, ids[:3], graph, num_anchors=3)
    with pytest.raises(ValueError, match="edge_weight must be above 0, got 0"):
        pamc(z, ids, graph.with_values(torch.zeros(graph.num_entries, dtype=torch.float64)))
