"""A study on a few kilobytes of text made here: seconds to train, no network."""

import json
import random
from pathlib import Path

import yaml

WORDS = (
    *("amber", "basin", "cedar", "delta", "ember", "field", "grove", "heath"),
    *("inlet", "jetty", "knoll", "larch", "marsh", "north", "ocean", "pines", "quarry"),
)


def write(folder: Path, **study: object) -> list[str]:
    """Write texts and settings into ``folder``; return the command-line words that name them."""
    rng = random.Random(7)
    for category, joint in (("prose", " "), ("code", "_")):
        rows = [{"text": joint.join(rng.choices(WORDS, k=60))} for _ in range(300)]
        (folder / f"{category}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    items = [{"prompt": f"{word}:", "completion": f" {word[::-1]}"} for word in WORDS]
    (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    data = {
        "name": "small",
        "vocab_size": 260,
        "categories": [
            {"name": name, "sources": [{"path": str(folder / f"{name}.jsonl")}], "validation_share": 0.05}
            for name in ("prose", "code")
        ],
    }
    skills = {
        "name": "small",
        "sets": [{"name": "reversal", "path": str(folder / "items.jsonl"), "split": "train"}],
        "skills": [{"name": "reversing", "hypothesis": ["reversal"]}],
    }
    points = {
        "name": "small",
        "mixes": [{"prose": 0.5, "code": 0.5}],
        "budgets": [1e9, 4e9],
        "sizes": 4,
        "span": 2.0,
        "optimum_coefficient": 0.35,
        "optimum_exponent": 0.5,
        "seeds": [1],
        "resamples": 100,
    }
    for noun, plain in (("data", data), ("skills", skills), ("study", {**points, **study})):
        (folder / f"{noun}.yaml").write_text(yaml.safe_dump(plain))
    words = [word for noun in ("data", "skills", "study") for word in (f"--{noun}", str(folder / f"{noun}.yaml"))]
    words += ["--tracking", f"sqlite:///{folder / 'runs.db'}", "--model.context", "64"]
    return words
