"""Time in the encoder: what it changes, and what it must not."""

import numpy as np
import pytest
import torch
from torch import Tensor

from model.clicks.histories import Histories, encoder_inputs, leave_one_out
from model.errors import DataError
from model.evaluation.scorer import EncoderScorer
from model.network.attention import PaddingSide
from model.network.config import EncoderConfig
from model.network.encoder import UserEncoder
from model.network.time import KNOTS, Clock, PowerLaw, TimeKind, TimeTable
from model.training.objective import objective
from model.training.windows import Windows
from tests.conftest import random_encoder
from tests.small import of

N_ITEMS = 9
TODAY = 1_700_000_000
KINDS: list[TimeKind] = ["gaps", "buckets", "power", "rotary"]
DAY = 86_400
each_kind = pytest.mark.parametrize("kind", KINDS)


def encoder_of(kind: TimeKind, **changes: object) -> UserEncoder:
    fields = {"width": 16, "heads": 2, "max_length": 12, "positions": "rotary", "time": kind}
    return random_encoder(EncoderConfig(**(fields | changes)), N_ITEMS)  # type: ignore[arg-type]  # by name


def timed(*rows: tuple[list[int], list[int]], asked: list[int] | None = None) -> Histories:
    """Histories of items and their seconds after `TODAY`."""
    plain = of(*(items for items, _ in rows), n_items=N_ITEMS)
    times = TODAY + np.array([time for _, times in rows for time in times], np.int64)
    when = None if asked is None else TODAY + np.array(asked)
    return Histories(
        plain.user_ids, plain.item_ids, plain.items, plain.offsets, {"time": times}, when
    )


def embeddings(encoder: UserEncoder, histories: Histories) -> Tensor:
    inputs = encoder_inputs(histories, encoder.config.max_length, timed=True)
    with torch.no_grad():
        return encoder.encode(*map(torch.from_numpy, inputs))[0]


ONE = ([1, 2, 3, 4], [0, 0, 50, 40 * DAY])
OTHERS = [([5] * 12, list(range(12))), ([], []), ([7], [9 * DAY])]


@each_kind
@pytest.mark.parametrize("pooling", ["newest", "mean"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_and_batch_mates_change_nothing(
    kind: TimeKind, pooling: str, side: PaddingSide
) -> None:
    encoder = encoder_of(kind, pooling=pooling)
    alone = embeddings(encoder, timed(ONE, asked=[41 * DAY]))
    batch = timed(ONE, *OTHERS, asked=[41 * DAY, 12, 7, 10 * DAY])
    torch.testing.assert_close(embeddings(encoder, batch)[:1], alone, atol=1e-5, rtol=0)
    item_ids, key_mask, times, asked = map(
        torch.from_numpy, encoder_inputs(timed(ONE, asked=[41 * DAY]), 12, timed=True)
    )
    wide = (3, 0) if side == "left" else (0, 3)
    pad = torch.nn.functional.pad
    padded = (pad(item_ids, wide, value=8), pad(key_mask, wide), pad(times, wide, value=-5), asked)
    with torch.no_grad():
        torch.testing.assert_close(encoder.encode(*padded)[0], alone, atol=1e-5, rtol=0)


@each_kind
def test_the_day_on_which_everything_happens_does_not_matter(kind: TimeKind) -> None:
    encoder = encoder_of(kind)
    items, times = ONE
    later = (items, [time + 5 * DAY for time in times])
    moved = embeddings(encoder, timed(later, asked=[46 * DAY]))
    torch.testing.assert_close(moved, embeddings(encoder, timed(ONE, asked=[41 * DAY])))


@each_kind
def test_the_seconds_between_clicks_and_until_the_asking_matter(kind: TimeKind) -> None:
    encoder = encoder_of(kind)
    items, times = ONE
    slower = (items, [times[0], times[1] + 9, *times[2:]])
    plain = embeddings(encoder, timed(ONE))
    assert not torch.allclose(embeddings(encoder, timed(slower)), plain, atol=1e-4)
    assert not torch.allclose(embeddings(encoder, timed(ONE, asked=[41 * DAY])), plain, atol=1e-4)


@each_kind
def test_without_a_time_of_asking_it_is_that_of_the_newest_click(kind: TimeKind) -> None:
    encoder = encoder_of(kind)
    plain = embeddings(encoder, timed(ONE, ([], [])))
    item_ids, key_mask, times, asked = map(
        torch.from_numpy, encoder_inputs(timed(ONE, ([], [])), 12, timed=True)
    )
    with torch.no_grad():
        torch.testing.assert_close(encoder.encode(item_ids, key_mask, times)[0], plain)
        earlier, _ = encoder.encode(item_ids, key_mask, times, asked - DAY)
    torch.testing.assert_close(earlier, plain)


@each_kind
def test_a_time_of_asking_that_is_known_is_a_second_after_the_newest_click(kind: TimeKind) -> None:
    encoder = encoder_of(kind)
    newest = ONE[1][-1]
    second = embeddings(encoder, timed(ONE, asked=[newest + 1]))
    for asked in (newest, newest - DAY):
        torch.testing.assert_close(embeddings(encoder, timed(ONE, asked=[asked])), second)
    assert not torch.allclose(embeddings(encoder, timed(ONE)), second, atol=1e-4)


@each_kind
def test_every_position_is_trained_as_the_newest_one_serves(kind: TimeKind) -> None:
    """The state at a position of a window is the embedding of the clicks up to it, asked then."""
    encoder = encoder_of(kind, dropout=0)
    history = timed(([1, 2, 3, 4, 5], [0, 0, 9, DAY, 3 * DAY]))
    batch = Windows(history, 12, timed=True)[np.array([0])]
    assert batch.times is not None and batch.gaps is not None  # noqa: PT018  # both or none
    with torch.no_grad():
        clock = Clock.at_targets(batch.times, batch.gaps, batch.key_mask)
        states, _ = encoder.states(batch.item_ids, batch.key_mask, clock)
    for n in range(5):
        cut = history.oldest(np.array([n]))
        asked = history.seconds[n : n + 1]
        known = Histories(cut.user_ids, cut.item_ids, cut.items, cut.offsets, cut.columns, asked)
        torch.testing.assert_close(states[:, n], embeddings(encoder, known), atol=1e-5, rtol=0)


@each_kind
def test_time_is_trained(kind: TimeKind) -> None:
    encoder = encoder_of(kind, dropout=0).train()
    windows = Windows(timed(([1, 2, 3, 4], [0, 5, 9, DAY]), ([3, 2], [0, 7])), 12, timed=True)
    loss = objective(encoder, windows[np.arange(2)], 4)
    names = [
        name
        for name, parameter in encoder.named_parameters()
        if parameter.numel()
        and any(part in name for part in ("time", "scales", "exponents", "asking", "gaps"))
    ]
    of_time = [dict(encoder.named_parameters())[name] for name in names]
    assert len(of_time) >= 1
    assert all(gradient.abs().sum() > 0 for gradient in torch.autograd.grad(loss, of_time))


# With "rotary", half of the features turn by time from the beginning.
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "rotary"])
def test_a_new_encoder_begins_as_one_without_time(kind: TimeKind) -> None:
    torch.manual_seed(0)
    fields = {"width": 16, "heads": 2, "max_length": 12, "positions": "rotary"}
    plain = UserEncoder(EncoderConfig(**fields), N_ITEMS).eval()  # type: ignore[arg-type]  # by name
    with_time = UserEncoder(EncoderConfig(time=kind, **fields), N_ITEMS).eval()  # type: ignore[arg-type]  # by name
    with_time.load_state_dict(plain.state_dict(), strict=False)
    item_ids, key_mask, *_ = map(torch.from_numpy, encoder_inputs(timed(ONE), 12, timed=True))
    with torch.no_grad():
        expected = plain.encode(item_ids, key_mask)[0]
    torch.testing.assert_close(embeddings(with_time, timed(ONE, asked=[99 * DAY])), expected)


def test_a_table_is_read_at_powers_of_two_and_by_lines_between_them() -> None:
    table = TimeTable(1)
    with torch.no_grad():
        table.time_embedding.copy_(torch.arange(KNOTS)[:, None] ** 2)
        found = table(torch.tensor([0.0, 1.0, 3.0, 1023.0, 2**1.5 - 1, 1e30])).squeeze(1)
    expected = torch.tensor([0.0, 1.0, 4.0, 100.0, 2.5])
    torch.testing.assert_close(found[:5], expected, atol=1e-3, rtol=0)
    assert found[5].isfinite()


def test_the_power_law_falls_with_the_seconds() -> None:
    law = PowerLaw(heads=2)
    with torch.no_grad():
        law.scales.copy_(torch.tensor([[1.0, 0.0], [0.0, 3.0]]))
        found = law(torch.tensor([[[0.0, 1.0, 99.0]]]))  # (1, 2, 1, 3)
    seconds = torch.tensor([1.0, 2.0, 100.0])
    torch.testing.assert_close(found[0, 0, 0], seconds**-0.1)
    torch.testing.assert_close(found[0, 1, 0], 3 * seconds**-0.5)


def test_cases_know_the_times_of_their_targets() -> None:
    split = leave_one_out(timed(([1, 2, 3], [0, 5, 9]), ([4, 5, 6], [1, 2, 30])))
    known = split.test.at_their_times()
    assert split.test.histories.asked is None
    assert known.histories.asked is not None
    assert (known.histories.asked - TODAY).tolist() == [9, 30]
    np.testing.assert_array_equal(known.sample(1, 0).histories.asked, known.sample(1, 0).times)


def test_a_scorer_asks_at_the_time_of_the_target_where_it_is_known() -> None:
    encoder = encoder_of("gaps")
    test = leave_one_out(timed(([1, 2, 3], [0, 5, 9]), ([4, 5, 6], [1, 2, 30]))).test
    unknown, known = (
        EncoderScorer(encoder).scores(cases.histories) for cases in (test, test.at_their_times())
    )
    asked = timed(([1, 2], [0, 5]), ([4, 5], [1, 2]), asked=[9, 30])
    with torch.no_grad():
        expected = encoder.logits(embeddings(encoder, asked)).numpy()
    np.testing.assert_allclose(known, expected, atol=1e-5)
    assert not np.allclose(unknown, known, atol=1e-4)


def test_clicks_without_times_are_refused_where_time_is_read() -> None:
    with pytest.raises(DataError, match="reads the time of each click, and these clicks have none"):
        Windows(of([1, 2]), 4, timed=True)
    encoder = encoder_of("power")
    with pytest.raises(ValueError, match="given no times of the clicks"):
        encoder.encode(torch.zeros(1, 2, dtype=torch.int64), torch.ones(1, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="rotary time needs rotary positions beside it"):
        EncoderConfig(time="rotary")
    with pytest.raises(ValueError, match="a head width that 4 divides, not 6"):
        EncoderConfig(time="rotary", positions="rotary", width=12)
