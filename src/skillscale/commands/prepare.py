"""``prepare``: build or fetch the data, train the tokenizer, write the token arrays."""

from skillscale.cli.output import Output
from skillscale.config import Config
from skillscale.config.options import PrepareOptions
from skillscale.formatting import JsonObject


def prepare(options: PrepareOptions, config: Config, out: Output) -> JsonObject:
    """Build or fetch the data, train the tokenizer, write the token arrays."""
    from skillscale.lm.data.prepare import prepare as prepare_data

    prepared = prepare_data(config, options.cache, progress=out.progress)
    tokens = {name: category.n_tokens for name, category in prepared.categories.items()}
    items = {name: len(items) for name, items in prepared.sets.items()}
    for name, n_tokens in tokens.items():
        out.text(f"{name:<24}{n_tokens:>12,} tokens")
    for name, n_items in items.items():
        out.text(f"{name:<24}{n_items:>12,} items")
    out.text(f"in {prepared.folder}")
    return {"data_hash": prepared.data_hash, "folder": prepared.folder, "tokens": tokens, "items": items}
