"""The encoder as it is served gives in PyTorch what the trained one gives."""

from collections.abc import Iterator
from itertools import product

import pytest
import torch

from export.graphs import PlainEncoder
from export.served import LONG_PIECES, ServedEncoder, can_rearrange
from model.network.attention import NORMALISATIONS, SIMILARITIES, PaddingSide, mask_from_lengths
from model.network.config import EncoderConfig
from tests.attention_kinds import KINDS
from tests.conftest import random_encoder

N_ITEMS, BATCH = 9, 4
SHARED = {"width": 8, "max_length": 12, "heads": 2}


def configs(positions: str, pooling: str, time: str) -> Iterator[EncoderConfig]:
    """Every architecture with these positions and this pooling."""
    rest = (("pre", 1, 1.0), ("post", 2, 3.0))
    choices = product(KINDS, SIMILARITIES, NORMALISATIONS, rest)
    for attention, similarity, normalisation, (norm, blocks, scale) in choices:
        if positions == "rotary" and similarity == "additive":
            continue
        if time == "rotary" and positions != "rotary":
            continue
        yield EncoderConfig(
            attention, similarity, normalisation, pooling, positions, scale,  # type: ignore[arg-type]  # strings
            time=time, norm=norm, blocks=blocks, gated=scale > 1, **SHARED,  # type: ignore[arg-type]  # by name
        )  # fmt: skip


def inputs(length: int, side: PaddingSide) -> tuple[torch.Tensor, ...]:
    """A full, an empty and two partial histories, with unknown items; and candidates."""
    generator = torch.Generator().manual_seed(length)
    item_ids = torch.randint(0, N_ITEMS + 1, (BATCH, length), generator=generator)
    lengths = torch.tensor([length, 0, length // 2, 1])
    candidates = torch.randint(0, N_ITEMS, (BATCH, 3), generator=generator)
    return item_ids, mask_from_lengths(lengths, length, side), candidates


def times(length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Of clicks, and of asking a day after each history's newest, but at the last one's itself."""
    generator = torch.Generator().manual_seed(length)
    steps = torch.randint(0, 5000, (BATCH, length), generator=generator)
    clicks = 1_700_000_000 + steps.cumsum(1)
    return clicks, clicks.amax(1) + torch.tensor([86_400, 86_400, 86_400, 0])


def assert_same(outputs: tuple[torch.Tensor, ...], others: tuple[torch.Tensor, ...]) -> None:
    for actual, expected in zip(outputs, others, strict=True):
        largest = max(1.0, float(expected.abs().max()))
        torch.testing.assert_close(actual, expected, atol=1e-5 * largest, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("pieces", [1, LONG_PIECES])
@pytest.mark.parametrize("pooling", ["newest", "mean", "additive"])
@pytest.mark.parametrize("positions", ["learned", "rotary", "none"])
def test_every_architecture_gives_the_same_outputs(
    positions: str, pooling: str, pieces: int
) -> None:
    for config in filter(can_rearrange, configs(positions, pooling, "none")):
        encoder = random_encoder(config, N_ITEMS, spread=0.1)
        served = ServedEncoder(encoder, pieces)
        for length in (1, 5, 12):
            given = inputs(length, "left" if length == 5 else "right")
            assert_same(served(*given[:2]), PlainEncoder(encoder)(*given[:2]))
            if encoder.candidates is not None:
                assert_same(served.score(*given), encoder.score(*given))


@torch.no_grad()
@pytest.mark.parametrize("pieces", [1, LONG_PIECES])
@pytest.mark.parametrize("positions", ["learned", "rotary"])
@pytest.mark.parametrize("time", ["gaps", "buckets", "power", "rotary"])
def test_every_kind_of_time_gives_the_same_outputs(time: str, positions: str, pieces: int) -> None:
    for config in filter(can_rearrange, configs(positions, "newest", time)):
        encoder = random_encoder(config, N_ITEMS, spread=0.1)
        served = ServedEncoder(encoder, pieces)
        for length in (1, 5, 12):
            item_ids, key_mask, _ = inputs(length, "left" if length == 5 else "right")
            given = (item_ids, key_mask, *times(length))
            assert_same(served(*given), PlainEncoder(encoder)(*given))


def test_what_is_rearranged_has_products_for_scores() -> None:
    assert can_rearrange(EncoderConfig(similarity="general", normalisation="weighted_softmax"))
    assert can_rearrange(EncoderConfig(similarity="dot", positions="rotary"))
    assert not can_rearrange(EncoderConfig(similarity="general", positions="rotary"))
    assert not can_rearrange(EncoderConfig(similarity="additive"))
    assert not can_rearrange(EncoderConfig(time="gaps", pooling="mean"))
    assert not can_rearrange(EncoderConfig(time="gaps", attention="source_target"))


def test_the_trained_encoder_stays_as_it_is() -> None:
    encoder = random_encoder(EncoderConfig(**SHARED), N_ITEMS)  # type: ignore[arg-type]  # by name
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    ServedEncoder(encoder)
    after = encoder.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
