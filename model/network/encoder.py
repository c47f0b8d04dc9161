"""The user encoder: item ids and a key mask to user embeddings, top to bottom.

A start token precedes the history. Transformer blocks with causal self-attention follow, with the
query mask after every block and after the final norm, then a pooling into the user embedding. The
item table is tied: it embeds clicks and scores next clicks (SASRec, Kang and McAuley 2018, with
full softmax cross-entropy).
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from model.network.attention import sequence_mask
from model.network.block import Block
from model.network.columns import ClickColumns
from model.network.config import EncoderConfig
from model.network.dropout import Dropout
from model.network.item_table import ItemTable
from model.network.reading import Candidates, Pool
from model.network.sequence import MaskedSequence, take
from model.network.time import Clock, TimeTable


class UserEncoder(nn.Module):
    """Click histories to user embeddings of width D.

    Args:
        config: the architecture.
        n_items: size of the catalogue. Row n_items of the table belongs to unknown items.
        items: the item table, where it reads features of the items.
    """

    def __init__(self, config: EncoderConfig, n_items: int, items: ItemTable | None = None) -> None:
        super().__init__()
        self.config = config
        self.n_items = n_items
        self.item_embedding = items or nn.Embedding(n_items + 1, config.width)
        self.columns = ClickColumns(config.columns, config.width) if config.columns else None
        self.start_embedding = nn.Parameter(torch.empty(config.width))
        self.position_embedding = (
            nn.Embedding(config.max_length + 1, config.width)
            if config.positions == "learned"
            else None
        )
        self.blocks = nn.ModuleList(
            Block(config, last=n == config.blocks) for n in range(1, config.blocks + 1)
        )
        self.gaps = TimeTable(config.width) if config.time in {"gaps", "gaps_power"} else None
        self.final_norm = nn.LayerNorm(config.width)
        self.pool = Pool(config)
        self.candidates = Candidates(config) if config.attention == "source_target" else None
        self.dropout = Dropout(config.dropout)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
        nn.init.normal_(self.start_embedding, std=0.02)

    def embed(
        self,
        item_ids: Tensor,
        key_mask: Tensor,
        clock: Clock | None = None,
        columns: Sequence[Tensor] = (),
    ) -> tuple[Tensor, MaskedSequence]:
        """Embeds start token and clicks with their positions, (B, 1 + L, D); padding is 0."""
        # The ids of padding must not matter, even if they are out of range.
        clicks = self.item_embedding(torch.where(key_mask, item_ids, 0))  # (B, L, D)
        if self.columns is not None:
            clicks = clicks + self.columns(columns, key_mask)
        if self.config.embedding_scale != 1:
            clicks = clicks * self.config.embedding_scale
        start = self.start_embedding.expand(item_ids.shape[0], 1, -1)  # len() would export as 2
        x = torch.cat((start, clicks), dim=1)  # (B, 1 + L, D)
        sequence = MaskedSequence(key_mask, self.config, clock)
        if self.position_embedding is not None:
            x = x + self.position_embedding(sequence.positions)
        if self.gaps is not None and clock is not None:
            x = x + self.gaps(clock.since_previous())
        return sequence_mask(self.dropout(x), sequence.query_mask, "mul"), sequence

    def states(
        self,
        item_ids: Tensor,
        key_mask: Tensor,
        clock: Clock | None = None,
        columns: Sequence[Tensor] = (),
    ) -> tuple[Tensor, MaskedSequence]:
        """The state of every position after the final norm, (B, 1 + L, D).

        Args:
            item_ids: (B, L) int64 rows of the item table, oldest to newest.
            key_mask: (B, L) bool, True on real clicks; padding may be on either side.
            clock: of an encoder that reads time.
            columns: of an encoder that reads some, as for `ClickColumns`.
        """
        x, sequence = self.embed(item_ids, key_mask, clock, columns)
        for block in self._blocks():
            x = block.fused(x, sequence)
        return sequence_mask(self.final_norm(x), sequence.query_mask, "mul"), sequence

    def encode(
        self,
        item_ids: Tensor,
        key_mask: Tensor,
        times: Tensor | None = None,
        asked: Tensor | None = None,
        *,
        columns: Sequence[Tensor] = (),
    ) -> tuple[Tensor, Tensor]:
        """The user embedding after the newest click, and the weights of the positions behind it.

        From item_ids and key_mask (B, L) to embeddings (B, D), and the last block's weights
        averaged by the pooling, (B, H, 1 + L), whose rows sum to 1. With pooling `newest` the last
        block computes the newest position only. An encoder that reads time needs `times` (B, L), in
        int64 seconds; `asked` (B,) is the time of asking, by default that of the newest click.
        `columns` are as for `states`.
        """
        clock = self._clock(times, asked, key_mask)
        x, sequence = self.embed(item_ids, key_mask, clock, columns)
        *earlier, last = self._blocks()
        for block in earlier:
            x, _ = block.forward(x, sequence, None)
        if self.config.pooling == "newest":
            newest, weights = last.forward(x, sequence, sequence.newest)  # (B, D), (B, H, 1, 1 + L)
            return self.final_norm(newest), weights.squeeze(2)
        x, weights = last.forward(x, sequence, None)
        embedding, shares = self.pool(self.final_norm(x), sequence.key_mask)  # (B, D), (B, 1 + L)
        return embedding, (shares[:, None, None, :] @ weights).squeeze(2)

    def encode_full(
        self,
        item_ids: Tensor,
        key_mask: Tensor,
        times: Tensor | None = None,
        asked: Tensor | None = None,
        *,
        columns: Sequence[Tensor] = (),
    ) -> tuple[Tensor, Tensor]:
        """The user embedding with the weights of every block at every position.

        From item_ids and key_mask (B, L) to embeddings (B, D) and weights
        (B, blocks, H, 1 + L, 1 + L). Rows of padded queries are 0. All else is as for `encode`.
        """
        clock = self._clock(times, asked, key_mask)
        x, sequence = self.embed(item_ids, key_mask, clock, columns)
        per_block = []
        for block in self._blocks():
            x, weights = block.forward(x, sequence, None)
            per_block.append(sequence_mask(weights, sequence.query_mask[:, None], "mul"))
        embedding = self._read(self.final_norm(x), sequence)
        return embedding, torch.stack(per_block, dim=1)

    def _read(self, states: Tensor, sequence: MaskedSequence) -> Tensor:
        if self.config.pooling == "newest":
            return take(states, sequence.newest)
        embedding: Tensor = self.pool(states, sequence.key_mask)[0]
        return embedding

    def _blocks(self) -> list[Block]:
        return cast("list[Block]", list(self.blocks))

    def _clock(self, times: Tensor | None, asked: Tensor | None, key_mask: Tensor) -> Clock | None:
        if self.config.time == "none" or times is None:
            return None
        return Clock.at_newest(times, asked, key_mask)

    def score(
        self,
        item_ids: Tensor,
        key_mask: Tensor,
        candidate_ids: Tensor,
        times: Tensor | None = None,
        asked: Tensor | None = None,
        *,
        columns: Sequence[Tensor] = (),
    ) -> tuple[Tensor, Tensor]:
        """Scores candidates by source-target attention.

        From item_ids and key_mask (B, L) and candidate_ids (B, N) to scores (B, N) and weights
        (B, N, H, L). All else is as for `encode`.

        Raises:
            ValueError: the architecture is not `source_target`.
        """
        if self.candidates is None:
            raise ValueError("scores by attention need attention = 'source_target'")
        clock = self._clock(times, asked, key_mask)
        states, sequence = self.states(item_ids, key_mask, clock, columns)
        user = self._read(states, sequence).unsqueeze(1)  # (B, 1, D)
        embedded = self.item_embedding(candidate_ids)  # (B, N, D)
        mask = key_mask[:, None, None, :]
        scores: tuple[Tensor, Tensor] = self.candidates(user, states[:, 1:], mask, embedded)
        return scores

    def logits(self, user_embedding: Tensor) -> Tensor:
        """Score of every item by the tied table, (..., D) to (..., n_items)."""
        return user_embedding @ self.item_embedding.weight[: self.n_items].mT

    def with_plain_table(self) -> "UserEncoder":
        """The same encoder, the vectors of its items written out as an `nn.Embedding`."""
        plain, table = UserEncoder(self.config, self.n_items), "item_embedding."
        weights = {k: v for k, v in self.state_dict().items() if not k.startswith(table)}
        weights[f"{table}weight"] = self.item_embedding.weight.detach()
        plain.load_state_dict(weights)
        return plain.eval()
