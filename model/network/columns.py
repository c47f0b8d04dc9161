"""The columns of a click, added to its embedding: a vector per category, or a line per number.

All parameters start at 0: an encoder starts as one without columns.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from persona.columns import ClickColumn

LARGEST = 5.0  # deviations: a number that lies further out counts as this


class ClickColumns(nn.Module):
    """The sum of the vectors of all columns.

    Args:
        columns: by name, in the order in which `forward` gets their values.
        width: D, of an embedding.
    """

    def __init__(self, columns: Mapping[str, ClickColumn], width: int) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(
            {f"column_{name}": _part(column, width) for name, column in columns.items()}
        )

    def forward(self, values: Sequence[Tensor], key_mask: Tensor) -> Tensor:
        """What to add to the embeddings of clicks, (B, L, D); anything finite at padding.

        Args:
            values: of each column (B, L): int64 rows of categories, or float32 numbers.
            key_mask: (B, L) bool, True on real clicks.

        Raises:
            ValueError: there are more or fewer columns.
        """
        if len(values) != len(self.parts):
            raise ValueError(
                f"this encoder reads {len(self.parts)} columns of clicks, and was given "
                f"{len(values)}"
            )
        added: list[Tensor] = [
            part(one, key_mask) for part, one in zip(self.parts.values(), values, strict=True)
        ]
        return sum(added[1:], start=added[0])


class CategoryColumn(nn.Module):
    """A vector for each category; the last one stands for categories that training did not see."""

    def __init__(self, column: ClickColumn, width: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.zeros(len(column.values) + 1, width))

    def forward(self, rows: Tensor, key_mask: Tensor) -> Tensor:
        """Rows (B, L), of any size at padding, to (B, L, D)."""
        return F.embedding(torch.where(key_mask, rows, 0), self.embedding)


class NumberColumn(nn.Module):
    """A vector for the mean, plus one for each deviation from it; nothing for a missing number.

    The mean and the deviation are those of the training clicks.
    """

    def __init__(self, column: ClickColumn, width: int) -> None:
        super().__init__()
        self.mean, self.deviation = column.mean, column.deviation
        self.embedding = nn.Parameter(torch.zeros(2, width))

    def forward(self, numbers: Tensor, key_mask: Tensor) -> Tensor:
        """Numbers (B, L), NaN where one is missing, to (B, L, D)."""
        known = key_mask & ~numbers.isnan()
        scaled = ((numbers - self.mean) / self.deviation).clamp(-LARGEST, LARGEST)
        read = torch.stack((known.float(), torch.where(known, scaled, 0.0)), dim=-1)  # (B, L, 2)
        return read @ self.embedding


def _part(column: ClickColumn, width: int) -> CategoryColumn | NumberColumn:
    return (CategoryColumn if column.kind == "category" else NumberColumn)(column, width)
