"""An encoder as a scorer, like the baselines."""

import numpy as np
import torch
from numpy.typing import NDArray

from model.clicks.histories import Histories, encoder_inputs
from model.network.encoder import UserEncoder


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
        encoder = self._encoder
        device = encoder.item_embedding.weight.device
        timed = encoder.config.time != "none"
        inputs = encoder_inputs(histories, *encoder.config.window, timed=timed)
        with torch.autocast(device.type, enabled=False):  # in bf16 many items have equal scores
            embedding, _ = encoder.encode(*(torch.from_numpy(one).to(device) for one in inputs))
            logits = encoder.logits(embedding)  # (B, n_items)
        if self._probabilities:
            logits = logits.softmax(-1)
        scores: NDArray[np.float32] = logits.cpu().numpy()
        return scores
