"""`python -m tests.mutations [1]`: builds each known trap of masked attention back in, in a copy of
the project, and shows that the tests named beside it fail. The traps are those of
docs/attention.md.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]


class Mutation(NamedTuple):
    """One change that a plausible hand would make."""

    trap: str
    file: str
    old: str
    new: str
    tests: str


ATTENTION, ENCODER = "model/network/attention.py", "model/network/encoder.py"
BLOCK, SEQUENCE = "model/network/block.py", "model/network/sequence.py"
GRAPHS, SERVED = "export/graphs.py", "export/served.py"
IN_ATTENTION, IN_ENCODER = "tests/model/test_attention.py", "tests/model/test_encoder.py"
SELECT = "x.masked_fill(~mask, masked)"
MASKED = 'masked = torch.finfo(x.dtype).min if mode == "add" else 0.0'
AFTER_BLOCK = (
    'return sequence_mask(self._finish(asked, context), sequence.query_mask, "mul"), weights'
)
FINAL = 'return sequence_mask(self.final_norm(x), sequence.query_mask, "mul"), sequence'

MUTATIONS = [
    Mutation(
        "1: -inf on a fully masked row, and 0 * NaN",
        ATTENTION,
        'return sequence_mask(weights, mask, "mul")',
        "return torch.softmax(scores.masked_fill(~mask, -math.inf), dim=-1) * mask",
        f"{IN_ATTENTION} -k fully_masked",
    ),
    Mutation(
        "1: an added 1e12",
        ATTENTION,
        SELECT,
        '(x - (~mask) * 1e12) if mode == "add" else x * mask',
        f"{IN_ATTENTION} -k both_modes",
    ),
    Mutation(
        "1: 0 * NaN",
        ATTENTION,
        SELECT,
        'x.masked_fill(~mask, masked) if mode == "add" else x * mask',
        f"{IN_ATTENTION} -k nan_through",
    ),
    Mutation(
        "1: two summed finfo.min",
        ATTENTION,
        SELECT,
        '(x + torch.zeros_like(x).masked_fill(~mask, masked)) if mode == "add" '
        "else x.masked_fill(~mask, 0)",
        f"{IN_ATTENTION} -k again",
    ),
    Mutation(
        "1: no second mask, so a fully masked row attends to padding",
        ATTENTION,
        'return sequence_mask(weights, mask, "mul")',
        "return weights",
        f"{IN_ATTENTION} -k weighs_nothing",
    ),
    Mutation(
        "2: a query mask told from activations",
        ENCODER,
        "clicks = self.item_embedding(",
        "key_mask = key_mask & self.item_embedding(item_ids.clamp(0, self.n_items)).abs()"
        ".sum(-1).gt(0)\n        clicks = self.item_embedding(",
        f"{IN_ENCODER} -k told_from",
    ),
    Mutation(
        "2: no query mask after a block",
        BLOCK,
        AFTER_BLOCK,
        "return self._finish(asked, context), weights",
        f"{IN_ENCODER} -k after_every_block",
    ),
    Mutation(
        "2: no query mask after the final norm",
        ENCODER,
        FINAL,
        "return self.final_norm(x), sequence",
        f"{IN_ENCODER} -k after_every_block",
    ),
    Mutation(
        "3: the mask on the wrong side",
        ATTENTION,
        'if padding_side == "left":',
        'if padding_side == "right":',
        f"{IN_ATTENTION} -k side_that_is_named",
    ),
    Mutation(
        "3: a length in place of the mask",
        SEQUENCE,
        "self.key_mask = F.pad(key_mask, (1, 0), value=True)",
        "self.key_mask = torch.arange(key_mask.shape[1] + 1) <= key_mask.sum(1)[:, None]",
        f"{IN_ENCODER} -k never_move",
    ),
    Mutation(
        "4: positions counted over the padded row",
        SEQUENCE,
        "self.positions = counted - 1",
        "self.positions = torch.ones_like(counted).cumsum(1).clamp_max(13) - 1",
        f"{IN_ENCODER} -k never_move",
    ),
    Mutation(
        "4: positions counted back from the newest click",
        SEQUENCE,
        "self.positions = counted - 1",
        "self.positions = (self.key_mask.sum(1, keepdim=True) - counted) * self.key_mask",
        f"{IN_ENCODER} -k at_that_moment",
    ),
    Mutation(
        "5: unknown items punched out as padding",
        ENCODER,
        "x, sequence = self.embed(item_ids, key_mask, clock, columns)\n        *earlier",
        "known = key_mask & (item_ids != self.n_items)\n"
        "        x, sequence = self.embed(item_ids, known, clock, columns)\n"
        "        *earlier",
        f"{IN_ENCODER} -k unknown_items",
    ),
    # The backward arange of trap 6 exports correctly since PyTorch 2.13; test_parity.py would
    # tell if it did not.
    Mutation(
        "6: an example batch of 1",
        GRAPHS,
        "BATCH, LENGTH, CANDIDATES, KEPT = 2, 3, 4, 5",
        "BATCH, LENGTH, CANDIDATES, KEPT = 1, 3, 4, 5",
        "tests/export/test_parity.py -k dynamic and general",
    ),
    Mutation(
        "7: heads averaged",
        ATTENTION,
        "return self._join(weights @ v), weights",
        "return self._join(weights @ v), weights.mean(1, keepdim=True)",
        f"{IN_ATTENTION} -k plain_loop",
    ),
    Mutation(
        "8: a fused attention in an opset-23 graph",
        GRAPHS,
        "OPSET = 20",
        "OPSET = 23",
        "tests/export/test_parity.py -k opset_23 and general",
    ),
    Mutation(
        "9: a graph for right padding only",
        SERVED,
        "scores = torch.where(sequence.key_mask[:, None], scores, MASKED)",
        "length = sequence.key_mask.sum(1)[:, None, None]\n"
        "        scores = torch.where(torch.arange(keys.shape[1]) < length, scores, MASKED)",
        "tests/artifact/test_artifact.py -k covers",
    ),
    Mutation(
        "10: an unstable sort of tied times",
        "persona/tables/clicks.py",
        '[user, *self._times(), "rowid"]',
        '[user, *self._times(), "rowid DESC"]',
        "tests/model/test_readers.py -k ties",
    ),
]


def caught(mutation: Mutation) -> bool:
    """Whether the tests fail on the mutated copy."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "persona"
        ignored = shutil.ignore_patterns(".git", ".venv", "runs", ".*_cache", "__pycache__")
        shutil.copytree(ROOT, copy, ignore=ignored)
        path = copy / mutation.file
        text = path.read_text()
        if mutation.old not in text:
            raise SystemExit(f"{mutation.file} no longer holds {mutation.old!r}")
        path.write_text(text.replace(mutation.old, mutation.new))
        options = ["-n", "0", "-x", "-q", "-p", "no:cacheprovider"]
        command = [sys.executable, "-m", "pytest", *options, *mutation.tests.split(" ", 2)]
        # 1: a test failed. 5 and others: nothing ran, or nothing could.
        return (
            subprocess.run(command, cwd=copy, stdout=subprocess.DEVNULL, check=False).returncode
            == 1
        )


def main() -> None:
    """Tries every mutation and fails if one survives."""
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    chosen = [mutation for mutation in MUTATIONS if mutation.trap.startswith(wanted)]
    results = {mutation: caught(mutation) for mutation in chosen}
    for mutation, found in results.items():
        print(f"{'caught  ' if found else 'SURVIVED'} {mutation.trap} ({mutation.tests})")
    sys.exit(not all(results.values()))


if __name__ == "__main__":
    main()
