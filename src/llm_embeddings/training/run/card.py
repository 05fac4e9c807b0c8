"""How a result was made, beside its weights: README.md for people, provenance.json for programs."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...checkpoint import sidecar
from ...checkpoint.files import read_json
from ...packed.heads import in_words
from ...recipe import Recipe
from ..options import StageOptions
from .checkpoints import METRICS
from .stage import Batch, Stage

PROVENANCE = "provenance.json"
_PACKAGES = ("llm-embeddings", "torch", "transformers", "peft", "accelerate")


def write_card(
    directory: Path,
    stage: Stage[Batch],
    options: StageOptions,
    *,
    updates: int,
    output: Path,
    more: Mapping[str, str],
) -> None:
    """Write README.md and provenance.json.

    Args:
        directory: The folder of the saved result.
        stage: The stage that made it.
        options: The stage's options.
        updates: How many updates the run had.
        output: The run's folder, which holds its metrics.
        more: What is told beside the stage's facts, by name.
    """
    saved = sidecar.read(directory)
    assert saved is not None, "a stage saves its recipe"
    values = {
        "stage": stage.name,
        "model": options.model,
        "updates": updates,
        "facts": {**stage.facts(), **more},
        "options": options.to_dict(),
        "versions": versions(),
        "metrics": _last_metrics(output / METRICS),
        "before": _before(options.model),
    }
    text = json.dumps(values, indent=1, ensure_ascii=False, default=str)
    (directory / PROVENANCE).write_text(text + "\n", encoding="utf-8")
    (directory / "README.md").write_text(_card(values, saved.recipe), encoding="utf-8")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that the result depends on."""
    found = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"python": platform.python_version(), **found}


def _before(model: str) -> dict[str, Any] | None:
    """The provenance of the model trained on, with that of all stages before; None = not known."""
    return read_json(Path(model).expanduser() / PROVENANCE) or None


def _last_metrics(path: Path) -> dict[str, float]:
    """The last value of each metric in a metrics.jsonl file."""
    found: dict[str, float] = {}
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            found |= json.loads(line)
    return found


def _card(values: dict[str, Any], recipe: Recipe) -> str:
    """The text of README.md."""
    options, facts = values["options"], values["facts"]
    chain = " → ".join([*_chain(values)])
    front = ["library_name: llm-embeddings", "pipeline_tag: feature-extraction", "tags:"]
    front += [f"- {tag}" for tag in ("llm-embeddings", "embeddings", values["stage"])]
    parts = [
        "\n".join(["---", *front, "---"]),
        f"# {recipe.name}",
        f"Made from `{values['model']}` by the stage `{values['stage']}` of llm-embeddings, in "
        f"{values['updates']:,} updates. All stages: {chain}.",
        "```python\nfrom llm_embeddings import Encoder\n\n"
        'encoder = Encoder.from_pretrained("this directory")\n'
        'vectors = encoder.encode_document(["A text."])\n```',
        "## How it embeds",
        _table(
            {
                "attention": "causal" if recipe.causal else "bidirectional",
                "pooling": recipe.pooling,
                "pooled span": recipe.pool_span,
                **({"heads": in_words(recipe.heads)} if recipe.heads else {}),
                "query": repr(recipe.query.prefix) + " text " + repr(recipe.query.suffix),
                "document": repr(recipe.document.prefix) + " text " + repr(recipe.document.suffix),
                "longest": f"{recipe.max_length} tokens",
                "normalised": recipe.normalize,
            }
        ),
        "## Training",
        _table({name: value for name, value in facts.items() if name != "data"}),
        "### Data",
        _data(facts.get("data")),
        "### Last metrics",
        _table(values["metrics"]),
        "### Options",
        _table(options),
        "### Versions",
        _table(values["versions"]),
    ]
    return "\n\n".join(parts) + "\n"


def _chain(values: dict[str, Any]) -> list[str]:
    """The first model and the stages since, in order."""
    before = values["before"]
    return [*(_chain(before) if before else [f"`{values['model']}`"]), values["stage"]]


def _data(data: object) -> str:
    """The fingerprint of the data as a table in Markdown."""
    if not isinstance(data, list) or not data:
        return f"`{data}`"
    names = [name for name in data[0] if name != "weight" or any(d["weight"] != 1 for d in data)]
    rows = [[str(entry.get(name, "")) for name in names] for entry in data]
    return "\n".join(_table_row(cells) for cells in [names, ["---"] * len(names), *rows])


def _table(values: dict[str, Any]) -> str:
    """Names and values as a table in Markdown."""
    rows = [[name, f"`{_short(value)}`"] for name, value in values.items()]
    return "\n".join(_table_row(cells) for cells in [["", ""], ["---", "---"], *rows])


def _table_row(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)
