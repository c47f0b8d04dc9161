"""The model card: what the artifact is, where it comes from, how good it is, how to remake it."""

import json

from persona.artifact.format import CARD_PICTURE, Facts, Manifest

HEADER = """# {name}, version {version}

{description}

| | |
| --- | --- |
| items | {n_items:,} |
| embedding | {width} numbers, float32 |
| history | newest {max_length} clicks |
| licence | {licence} |
| made | {created} |
"""

PICTURE = f"![Quality beside the baselines, attention over examples]({CARD_PICTURE})\n"


def model_card(manifest: Manifest, *, pictured: bool = False) -> str:
    """The card as Markdown, from the manifest alone; `pictured` where a picture lies beside it."""
    architecture = manifest.architecture
    parts = [
        HEADER.format(
            **manifest.model_dump(exclude={"architecture"}),
            width=architecture.width,
            max_length=architecture.max_length,
        ),
        PICTURE if pictured else "",
        _section("Architecture", architecture.model_dump()),
        _training(manifest.training),
        _metrics(manifest.metrics),
        _section("PyTorch against ONNX Runtime", manifest.parity.model_dump()),
        _section("Versions", dict(manifest.versions)),
    ]
    return "\n".join(part for part in parts if part)


def _section(title: str, facts: Facts) -> str:
    if not facts:
        return ""
    rows = "\n".join(f"| {key.replace('_', ' ')} | {value} |" for key, value in facts.items())
    return f"## {title}\n\n| | |\n| --- | --- |\n{rows}\n"


def _training(training: Facts) -> str:
    """Plain facts as a table, then how to make the artifact again, then the whole recipe."""
    facts = {key: value for key, value in training.items() if key not in {"recipe", "commands"}}
    parts = [_section("Training", facts)]
    commands = training.get("commands")
    if isinstance(commands, list):
        parts.append("Made, and made again, by:\n\n```sh\n" + "\n".join(commands) + "\n```\n")
    if "recipe" in training:
        recipe = json.dumps(training["recipe"], indent=1, ensure_ascii=False)
        parts.append(f"The recipe, with every default filled in:\n\n```json\n{recipe}\n```\n")
    return "\n".join(part for part in parts if part)


def _metrics(metrics: Facts) -> str:
    """Plain facts as a table, and one row a scorer where `scorers` holds their figures."""
    facts = {key: value for key, value in metrics.items() if key not in {"scorers", "intervals"}}
    scorers = metrics.get("scorers")
    text = _section("Quality", facts)
    if not isinstance(scorers, dict) or not scorers:
        return text
    names = list(next(iter(scorers.values())))
    rows = [
        f"| {scorer} | " + " | ".join(f"{figures[name]:.4f}" for name in names) + " |"
        for scorer, figures in scorers.items()
    ]
    head = f"| | {' | '.join(names)} |\n|{' --- |' * (len(names) + 1)}"
    return f"{text}\n{head}\n" + "\n".join(rows) + "\n"
