"""What reads the states of the last block: the pooling, and candidates that attend over clicks."""

import math

import torch
from torch import Tensor, nn

from model.network.attention import Attention, masked_softmax, sequence_mask
from model.network.config import EncoderConfig


class Pool(nn.Module):
    """Pools the states of all positions into a user embedding.

    newest: the state of the newest click. mean: the mean of all states. additive: their mean
    weighted by softmax(v . tanh(W h + b)) with a learned query v (Wu 2019, NRMS). The start token
    takes part, so an empty history has an embedding.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.kind = config.pooling
        if self.kind == "additive":
            self.project = nn.Linear(config.width, config.width)
            self.query = nn.Parameter(torch.randn(config.width) / math.sqrt(config.width))

    def _scores(self, states: Tensor) -> Tensor:
        if self.kind == "mean":
            return torch.zeros_like(states[..., 0])
        return torch.tanh(self.project(states)) @ self.query

    def forward(self, states: Tensor, key_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Pools (B, 1 + L, D) into embeddings (B, D) and returns the weights (B, 1 + L) too."""
        weights = masked_softmax(self._scores(states), key_mask)
        return (weights.unsqueeze(1) @ states).squeeze(1), weights

    def running(self, states: Tensor, key_mask: Tensor) -> Tensor:
        """Pools the states up to every position, (B, 1 + L, D) to (B, 1 + L, D), for training.

        Masked positions are unspecified.
        """
        if self.kind == "newest":
            return states
        scores = sequence_mask(self._scores(states), key_mask, "add")
        # The shift of each row keeps exp within range and cancels in the quotient.
        shifted = torch.exp(scores - scores.amax(1, keepdim=True).detach())
        weights = sequence_mask(shifted, key_mask, "mul").unsqueeze(-1)
        total = weights.cumsum(1).clamp_min(torch.finfo(weights.dtype).tiny)
        return (weights * states).cumsum(1) / total


class Candidates(nn.Module):
    """Source-target attention: a candidate item attends over the user's clicks.

    The score is the dot product of the candidate with the sum of context and user embedding.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.attention = Attention(
            config.width, config.heads, config.similarity, config.normalisation
        )

    def forward(
        self, user_embedding: Tensor, clicks: Tensor, mask: Tensor, candidates: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Scores candidates for each user.

        Args:
            user_embedding: (B, 1 or N, D).
            clicks: states of the clicks, without the start token, (B, L, D).
            mask: bool, broadcastable to (B, H, N, L), True = attend.
            candidates: item embeddings (B, N, D).

        Returns:
            Scores (B, N); weights (B, N, H, L), 0 for an empty history.
        """
        context, weights = self.attention(candidates, clicks, mask)  # (B, N, D), (B, H, N, L)
        scores = ((user_embedding + context) * candidates).sum(-1)  # (B, N)
        return scores, weights.transpose(1, 2)
