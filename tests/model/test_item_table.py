"""The item table of features and learned parts: what a new item has, and what training drops."""

from pathlib import Path

import numpy as np
import pytest
import torch

from model.clicks.histories import Histories, leave_one_out
from model.network.config import EncoderConfig
from model.network.encoder import UserEncoder
from model.network.item_table import ItemTable
from model.training.next_click_loss import sampled_next_click_loss
from model.training.objective import objective
from model.training.recipe import ItemsRecipe, Recipe, TrainingRecipe
from model.training.train import load_encoder, train_encoder
from model.training.windows import Windows
from persona.contract import Floats
from tests.small import of

ENCODER = EncoderConfig(width=16, blocks=1, max_length=6)
GROUPS = 2


def table_of(n_items: int = 6, drop: float = 0.0) -> ItemTable:
    torch.manual_seed(0)
    table = ItemTable(torch.rand(n_items, 3), 4, drop)
    torch.nn.init.normal_(table.learned)
    return table


def test_an_item_that_clicks_taught_nothing_has_the_projection_of_its_features() -> None:
    table = ItemTable(torch.rand(6, 3), 4).eval()
    expected = table.features[:6] @ table.projection
    torch.testing.assert_close(table(torch.arange(6)), expected)


def test_rows_are_those_of_the_whole_table() -> None:
    table = table_of(drop=0.5).eval()
    rows = torch.tensor([[5, 0], [6, 6]])
    torch.testing.assert_close(table(rows), table.weight[rows])


def test_an_unknown_item_has_a_learned_part_alone() -> None:
    table = table_of().eval()
    torch.testing.assert_close(table(torch.tensor(6)), table.learned[6])


def test_training_leaves_whole_learned_parts_out() -> None:
    table = table_of(n_items=400, drop=0.25)
    learned = table.weight - table.features @ table.projection
    gone = learned.abs().amax(1) < 1e-6
    assert 60 <= gone.sum() <= 140
    torch.testing.assert_close(learned[~gone], table.learned[~gone], atol=1e-5, rtol=0)


def test_sampled_negatives_touch_the_rows_that_they_read() -> None:
    states, targets = torch.rand(5, 4), torch.tensor([1, 2, 1, 2, 2])
    gradients = []
    for sparse in (True, False):
        table = table_of()
        table.sparse = sparse
        torch.manual_seed(1)
        torch.autograd.backward(sampled_next_click_loss(states, table, targets, 2))
        assert table.learned.grad is not None
        assert table.learned.grad.is_sparse == sparse
        gradients.append(table.learned.grad.to_dense())
    torch.testing.assert_close(*gradients)


def test_the_plain_table_gives_the_same_embeddings() -> None:
    encoder = UserEncoder(ENCODER, 6, ItemTable(torch.rand(6, 3), ENCODER.width)).eval()
    item_ids, key_mask = torch.tensor([[0, 6, 3]]), torch.ones(1, 3, dtype=torch.bool)
    plain = encoder.with_plain_table()
    assert isinstance(plain.item_embedding, torch.nn.Embedding)
    torch.testing.assert_close(
        plain.encode(item_ids, key_mask)[0], encoder.encode(item_ids, key_mask)[0]
    )


def groups(users: int = 200) -> tuple[Histories, Floats]:
    """Users who click items of one group, even or odd, and the features of 20 items: the group.

    The last two items are never clicked.
    """
    rng = np.random.default_rng(0)
    rows = [(2 * rng.integers(0, 9, 6) + user % GROUPS).tolist() for user in range(users)]
    features = np.zeros((20, GROUPS + 1), np.float32)
    features[np.arange(20), np.arange(20) % GROUPS] = 1
    features[:, GROUPS] = 1
    return of(*rows, n_items=20), features


@pytest.mark.parametrize("negatives", [0, 8], ids=["whole catalogue", "sampled negatives"])
def test_users_find_the_new_item_of_their_group(tmp_path: Path, negatives: int) -> None:
    histories, features = groups()
    training = TrainingRecipe(
        epochs=6, warmup_steps=2, max_batch=32, learning_rate=1e-2, negatives=negatives
    )
    recipe = Recipe(name="groups", encoder=ENCODER, training=training, items=ItemsRecipe())
    train_encoder(recipe, leave_one_out(histories), tmp_path, progress=False, features=features)
    encoder = load_encoder(ENCODER, 20, tmp_path)
    item_ids = torch.tensor([[0, 4, 2], [3, 1, 5]])
    embedding, _ = encoder.encode(item_ids, torch.ones_like(item_ids, dtype=torch.bool))
    assert isinstance(encoder.item_embedding, ItemTable)
    new = encoder.item_embedding.features[18:20] @ encoder.item_embedding.projection
    even, odd = (embedding @ new.T).detach()
    assert even[0] > even[1] + 1
    assert odd[1] > odd[0] + 1


def test_the_penalty_is_of_the_learned_parts_of_the_targets() -> None:
    histories, features = groups(4)
    table = ItemTable(torch.from_numpy(features), ENCODER.width)
    encoder = UserEncoder(ENCODER, 20, table).eval()
    torch.nn.init.normal_(table.learned)
    batch = Windows(histories, ENCODER.max_length)[np.arange(4)]
    with torch.no_grad():
        loss, more = (objective(encoder, batch, 2, penalty=rate) for rate in (0.0, 0.5))
    targets = batch.targets[batch.target_mask]
    size = table.learned.detach()[targets].square().sum(-1).mean()
    torch.testing.assert_close(more - loss, 0.5 * size)
