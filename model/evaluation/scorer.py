"""An encoder as a scorer, with the interface of the baselines."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.clicks.columns import column_inputs
from model.clicks.histories import Histories, encoder_inputs
from model.network.encoder import UserEncoder


def user_embeddings(encoder: UserEncoder, histories: Histories) -> Tensor:
    """The embeddings of histories, (B, D), with all that the encoder reads of their clicks.

    Raises:
        DataError: it reads times or a column, and the clicks have none.
    """
    device, config = encoder.item_embedding.weight.device, encoder.config
    inputs = encoder_inputs(histories, *config.window, timed=config.time != "none")
    columns = column_inputs(histories, config.columns, *config.window)
    given = [torch.from_numpy(one).to(device) for one in inputs]
    others = [torch.from_numpy(one).to(device) for one in columns]
    return encoder.encode(*given, columns=others)[0]


class EncoderScorer:
    """Scores next clicks by the user embedding of a PyTorch encoder, as the service does.

    Args:
        encoder: in eval mode.
        probabilities: whether to return softmax probabilities instead of logits.
    """

    def __init__(self, encoder: UserEncoder, *, probabilities: bool = False) -> None:
        self.name = "encoder"
        self._encoder = encoder
        self._probabilities = probabilities

    @torch.inference_mode()
    def scores(self, histories: Histories) -> NDArray[np.float32]:
        """Scores (B, n_items)."""
        device = self._encoder.item_embedding.weight.device
        with torch.autocast(device.type, enabled=False):  # in bf16 many items have equal scores
            embeddings = user_embeddings(self._encoder, histories)
            logits = self._encoder.logits(embeddings)  # (B, n_items)
        if self._probabilities:
            logits = logits.softmax(-1)
        scores: NDArray[np.float32] = logits.cpu().numpy()
        return scores
