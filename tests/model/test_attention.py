"""Attention against a plain loop over positions, written from the formulas."""

import math
from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor

from model.network.attention import (
    SIMILARITIES,
    Attention,
    MaskMode,
    PaddingSide,
    Scores,
    mask_from_lengths,
    masked_softmax,
    sequence_mask,
)
from tests.attention_kinds import ALL, Kind, each

WIDTH, BATCH, LENGTH, CANDIDATES = 8, 2, 4, 3
FLOATS = [torch.float32, torch.bfloat16, torch.float16]


def attention_of(kind: Kind, dtype: torch.dtype = torch.float64) -> Attention:
    """An attention whose parameters are all random, so that each one matters."""
    torch.manual_seed(7)
    attention = Attention(WIDTH, kind.heads, kind.similarity, kind.normalisation).to(dtype)
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return attention


def inputs_of(kind: Kind) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and mask (B, Lq, Lk): causal with padding, or candidates over clicks."""
    torch.manual_seed(11)
    keys = torch.randn(BATCH, LENGTH, WIDTH, dtype=torch.float64, requires_grad=True)
    key_mask = torch.tensor([[True, True, True, True], [True, True, False, False]])
    if kind.attention == "self":
        causal_mask = torch.ones(LENGTH, LENGTH).tril().bool()
        return keys, keys, causal_mask & key_mask[:, None, :]
    queries = torch.randn(BATCH, CANDIDATES, WIDTH, dtype=torch.float64, requires_grad=True)
    return queries, keys, key_mask[:, None, :].expand(-1, CANDIDATES, -1)


def total(parts: Iterable[Tensor]) -> Tensor:
    """A sum written out, in float64."""
    return sum(parts, start=torch.zeros((), dtype=torch.float64))


def plain_score(scores: Scores, head: int, q: Tensor, k: Tensor) -> Tensor:
    """f_sim(q, k) of one query and one key, (d,) and (d,), term by term."""
    d = len(q)
    if scores.similarity == "additive":
        w1, w2 = scores.query_projection[head], scores.key_projection[head]
        terms = [torch.tanh(w1[i] @ q + w2[i] @ k + scores.bias[head, 0, i]) for i in range(d)]
        return total(scores.term_weight[head, 0, i] * terms[i] for i in range(d))
    if scores.similarity == "general":
        w = scores.bilinear[head]
        k = torch.stack([total(w[i, j] * k[j] for j in range(d)) for i in range(d)])
    scale = math.sqrt(d) if scores.similarity == "scaled_dot" else 1.0
    terms = [q[i] * k[i] / scale for i in range(d)]
    if scores.normalisation == "weighted_softmax":
        terms = [scores.term_weight[head, 0, i] * terms[i] for i in range(d)]
    return total(terms)


def plain_attention(
    attention: Attention, queries: Tensor, keys: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor]:
    """c_i = sum_j a_ij v_j by loops over rows, heads, queries and keys."""
    d = WIDTH // attention.heads
    contexts, weights = [], []
    for b in range(len(queries)):
        for i in range(queries.shape[1]):
            joined = []
            for head in range(attention.heads):
                part = slice(head * d, head * d + d)
                q = attention.query(queries[b, i])[part]
                allowed = [j for j in range(keys.shape[1]) if mask[b, i, j]]
                powers = {
                    j: torch.exp(
                        plain_score(attention.scores, head, q, attention.key(keys[b, j])[part])
                    )
                    for j in allowed
                }
                row = {j: power / total(powers.values()) for j, power in powers.items()}
                zero = torch.zeros((), dtype=torch.float64)
                weights.append(torch.stack([row.get(j, zero) for j in range(keys.shape[1])]))
                joined.append(total(row[j] * attention.value(keys[b, j])[part] for j in allowed))
            contexts.append(attention.output(torch.cat(joined)))
    shape = (len(queries), queries.shape[1], attention.heads, keys.shape[1])
    return (
        torch.stack(contexts).reshape(queries.shape),
        torch.stack(weights).reshape(shape).transpose(1, 2),
    )


@each(ALL)
def test_values_and_gradients_equal_a_plain_loop_over_the_formulas(kind: Kind) -> None:
    attention = attention_of(kind)
    queries, keys, mask = inputs_of(kind)
    results = []
    for compute in (
        lambda: attention(queries, keys, mask[:, None]),
        lambda: plain_attention(attention, queries, keys, mask),
    ):
        context, weights = compute()
        wanted = [*attention.parameters(), queries, keys]
        # A different weight on every output, so that no two errors cancel.
        loss = (context * torch.arange(context.numel()).reshape(context.shape).cos()).sum()
        results.append([context, weights, *torch.autograd.grad(loss, wanted, allow_unused=True)])
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, atol=1e-9, rtol=0)


@each(ALL)
def test_masked_keys_weigh_exactly_nothing_and_rows_sum_to_one(kind: Kind) -> None:
    attention = attention_of(kind)
    queries, keys, mask = inputs_of(kind)
    _, weights = attention(queries, keys, mask[:, None])
    assert (weights[~mask[:, None].expand_as(weights)] == 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))


@each([kind for kind in ALL if kind.heads == 2])
def test_the_fused_context_equals_the_explicit_one(kind: Kind) -> None:
    attention = attention_of(kind)
    queries, keys, mask = inputs_of(kind)
    expected, _ = attention(queries, keys, mask[:, None])
    torch.testing.assert_close(attention.context(queries, keys, mask[:, None]), expected)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("fused", [False, True], ids=["explicit", "fused"])
@pytest.mark.parametrize("training", [False, True], ids=["eval", "training"])
@each([kind for kind in ALL if kind.heads == 2])
def test_a_fully_masked_row_has_finite_outputs_and_gradients(
    kind: Kind, dtype: torch.dtype, fused: bool, training: bool
) -> None:
    attention = attention_of(kind, dtype).train(training)
    queries = torch.randn(1, 3, WIDTH, dtype=dtype, requires_grad=True)
    mask = torch.tensor([[True, True, False], [False, False, False], [False, True, True]])
    context = (
        attention.context(queries, queries, mask[None, None])
        if fused
        else attention(queries, queries, mask[None, None])[0]
    )
    wanted = [queries, *attention.parameters()]
    loss = context.float().square().sum()
    gradients = torch.autograd.grad(loss, wanted)
    assert context.isfinite().all()
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_a_fully_masked_row_weighs_nothing() -> None:
    weights = masked_softmax(torch.randn(2, 3), torch.tensor([[False] * 3, [True] * 3]))
    assert weights[0].tolist() == [0, 0, 0]
    assert weights[1].sum() == pytest.approx(1)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("mode", ["add", "mul"])
def test_both_modes_of_the_sequence_mask_keep_real_values_bit_by_bit(
    dtype: torch.dtype, mode: MaskMode
) -> None:
    x = torch.tensor([[1.5, -2.25, 3.125]], dtype=dtype, requires_grad=True)
    mask = torch.tensor([[True, False, True]])
    masked = sequence_mask(x, mask, mode)
    assert masked[mask].tolist() == [1.5, 3.125]
    assert masked[0, 1].item() == (torch.finfo(dtype).min if mode == "add" else 0)
    (gradient,) = torch.autograd.grad(masked.sum(), x)
    assert gradient.tolist() == [[1, 0, 1]]


def test_mul_does_not_let_a_masked_infinity_or_nan_through() -> None:
    x = torch.tensor([math.nan, math.inf, 2.0], requires_grad=True)
    masked = sequence_mask(x, torch.tensor([False, False, True]), "mul")
    (gradient,) = torch.autograd.grad(masked.sum(), x)
    assert masked.tolist() == [0, 0, 2]
    assert gradient.tolist() == [0, 0, 1]


def test_add_does_not_erase_the_scores_it_keeps() -> None:
    """ulp(1e12) is 65,536 in fp32: an added 1e12 would make these two scores equal."""
    scores, mask = torch.tensor([[1.0, 2.0, 9.0]]), torch.tensor([[True, True, False]])
    weights = masked_softmax(scores, mask)
    torch.testing.assert_close(weights[0, 1] / weights[0, 0], torch.tensor(math.e))


def test_masking_a_masked_score_again_changes_nothing() -> None:
    """Two summed finfo.min are -inf; two selections are one."""
    mask = torch.tensor([True, False])
    once = sequence_mask(torch.zeros(2, dtype=torch.float16), mask, "add")
    assert sequence_mask(once, mask, "add").isfinite().all()


@pytest.mark.parametrize(
    ("side", "expected"),
    [("right", [[1, 1, 0], [0, 0, 0], [1, 1, 1]]), ("left", [[0, 1, 1], [0, 0, 0], [1, 1, 1]])],
)
def test_a_mask_from_lengths_lies_on_the_side_that_is_named(
    side: PaddingSide, expected: list[list[int]]
) -> None:
    assert mask_from_lengths(torch.tensor([2, 0, 3]), 3, side).long().tolist() == expected


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_weighted_softmax_starts_as_the_softmax_it_generalises(similarity: str) -> None:
    torch.manual_seed(0)
    plain = Scores(similarity, "softmax", 2, 4)  # type: ignore[arg-type]  # parametrised
    torch.manual_seed(0)
    weighted = Scores(similarity, "weighted_softmax", 2, 4)  # type: ignore[arg-type]  # as above
    q, k = torch.randn(1, 2, 3, 4), torch.randn(1, 2, 5, 4)
    torch.testing.assert_close(plain(q, k), weighted(q, k))


def attends_alike(attend: Callable[[Tensor], Tensor], keys: Tensor, order: Tensor) -> bool:
    """Whether the context stays the same when the keys change places."""
    return torch.allclose(attend(keys), attend(keys[:, order]))


@each([kind for kind in ALL if kind.heads == 2 and kind.attention == "source_target"])
def test_source_target_attention_does_not_depend_on_the_order_of_the_keys(kind: Kind) -> None:
    attention = attention_of(kind)
    queries, keys, _ = inputs_of(kind)
    everything = torch.ones(1, 1, 1, LENGTH, dtype=torch.bool)
    assert attends_alike(
        lambda k: attention(queries, k, everything)[0], keys, torch.tensor([2, 0, 3, 1])
    )


def test_a_width_that_the_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="width 8 does not divide into 3 heads"):
        Attention(8, 3, "dot", "softmax")
