"""From a config to token arrays and evaluation items, made once and cached by content.

    CACHE/tokenizers/HASH/  CACHE/tokens/CATEGORY-HASH/  CACHE/items/SET-HASH/  CACHE/data/HASH/data.json

A hash covers the settings, the sources' content and the tokenizer, so a change in one set or category makes that one
anew and nothing else; and the same content at another place has the same hash.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from skillscale.config import CategoryConfig, Config, DataConfig, EvalSetConfig, SourceConfig, kept_settings
from skillscale.errors import InputError
from skillscale.formatting import to_plain
from skillscale.lm.data import tokenizer as tokenizers
from skillscale.lm.data.cache import Progress, make_once, name_full_disk
from skillscale.lm.data.documents import EMBEDDED, read_rows
from skillscale.lm.data.fingerprints import Origin, origin
from skillscale.lm.data.mixture import n_blocks
from skillscale.lm.data.splits import CategoryTexts, sample, truncate
from skillscale.lm.data.token_arrays import TokenArray, open_tokens, write_tokens
from skillscale.lm.data.tokenizer import Tokenizer
from skillscale.lm.evaluation.items import (
    ItemSet,
    export_items,
    items_of_documents,
    items_of_rows,
    open_items,
    save_items,
)
from skillscale.point import DesignPoint, digest

RECIPE = 1  # raise it when the same settings and sources come to give other arrays
_FACTS_CATEGORY = "knowledge"
_REPEATED = 1.05  # a category read so many times over is worth a warning
_SCANNED = 32  # the tokenizer's sample of a category is drawn from so many times its size


@dataclass(frozen=True, kw_only=True)
class FactCount:
    """The facts that a category's training tokens mention. ``bits``: their entropy, an upper bound."""

    category: str
    count: int
    bits: float
    mentions_per_token: float

    def exposures(self, n_tokens: float) -> float:
        """Mean mentions a fact in ``n_tokens`` tokens of the category."""
        return self.mentions_per_token * n_tokens / self.count


@dataclass(frozen=True, kw_only=True)
class PreparedData:
    """Data ready to train on and to measure. ``folder`` holds ``data.json``; ``notices``: the sources' licences."""

    folder: Path
    data_hash: str
    tokenizer: Tokenizer
    categories: Mapping[str, TokenArray]
    validation: Mapping[str, ItemSet]
    sets: Mapping[str, ItemSet]
    context: int
    notices: tuple[str, ...] = ()
    facts: FactCount | None = None

    def check(self, point: DesignPoint) -> list[str]:
        """Warnings on a point: the categories that it must repeat, with the number of epochs.

        Raises:
            InputError: a category of its mix does not fill one sequence.
        """
        warnings = []
        for name, share in point.mix.shares.items():
            n_blocks(self.categories[name], self.context, name=name)
            wanted, there = share * point.n_tokens, self.categories[name].n_tokens
            if wanted > _REPEATED * there:
                warnings.append(
                    f"{name} holds {there / 1e6:.3g} M tokens, but {point.n_tokens / 1e6:.3g} M at a "
                    f"share of {share:.3g} read {wanted / 1e6:.3g} M, {wanted / there:.1f} epochs; "
                    "more text or fewer tokens help"
                )
        return warnings


@dataclass(frozen=True, kw_only=True)
class _Site:
    """Where a preparation works: the cache, the embedded corpora if the config names them, whom to tell."""

    cache: Path
    embedded: Path | None
    progress: Progress

    def origin(self, source: SourceConfig | EvalSetConfig) -> Origin:
        return origin(source.path, source.split, embedded=self.embedded, cache=self.cache)


def prepare(config: Config, cache: Path, *, progress: Progress) -> PreparedData:
    """Read, tokenise and cache everything that ``config`` trains on and measures; at once if it is there.

    Raises:
        InputError: a source, column or template that can't be used.
        TrainingError: the disk is full.
    """
    with name_full_disk(cache):
        embedded = embedded_corpora(_paths(config), config.data, cache, progress=progress)
        site = _Site(cache=cache, embedded=embedded, progress=progress)
        # whatever can be wrong with a source, a set or a template comes up before the long work, the tokens
        categories = [_category(one, site) for one in config.data.categories]
        sets = [(one, site.origin(one)) for one in config.skills.sets]
        tokenizer = _tokenizer(config.data, categories, site)
        items = {one.name: _make_items(one, known, tokenizer=tokenizer, site=site) for one, known in sets}
        tokens = {one.config.name: _make_tokens(one, tokenizer, site) for one in categories}
        manifest = _manifest(embedded or _corpora_folder(config.data))
        return _assembled(site, tokenizer, config.model.context, tokens=tokens, sets=items, manifest=manifest)


def embedded_corpora(paths: Iterable[str], data: DataConfig, cache: Path, *, progress: Progress) -> Path | None:
    """The folder of the embedded corpora, made where it is not there; None if no path is in it."""
    if not any(path.startswith(EMBEDDED) for path in paths):
        return None
    from skillscale.lm.data.corpora import build

    folder: Path = build(cache, preset=data.preset, zipf_exponent=data.zipf_exponent, progress=progress)
    return folder


def _paths(config: Config) -> list[str]:
    """Where everything lies that is trained on or measured."""
    paths = [one.path for one in config.skills.sets]
    for category in config.data.categories:
        paths += [source.path for source in (*category.sources, category.validation) if source]
    return paths


def _category(one: CategoryConfig, site: _Site) -> CategoryTexts:
    if one.validation is None and one.validation_share == 0:
        raise InputError(f"category {one.name} has no validation set; give `validation`, or a validation_share above 0")
    if one.max_bytes is None and len({source.weight for source in one.sources}) > 1:
        raise InputError(f"category {one.name} weighs its sources, but reads all of each; give max_bytes or no weights")
    return CategoryTexts(
        config=one,
        origins=tuple(site.origin(source) for source in one.sources),
        validation_origin=site.origin(one.validation) if one.validation else None,
        embedded=site.embedded,
    )


def _tokenizer(data: DataConfig, categories: Sequence[CategoryTexts], site: _Site) -> Tokenizer:
    if data.tokenizer:
        loaded = tokenizers.load(Path(data.tokenizer))
        if loaded.vocab_size != data.vocab_size:
            raise InputError(
                f"{data.tokenizer} has {loaded.vocab_size} entries, but data.vocab_size is {data.vocab_size}, and "
                f"sizes of models are counted with that; give --data.vocab_size {loaded.vocab_size}"
            )
        return loaded
    key = digest([RECIPE, data.vocab_size, data.tokenizer_bytes, [_texts_key(one) for one in categories]])

    def make(folder: Path) -> None:
        site.progress(f"training a tokenizer of {data.vocab_size} entries")
        each = data.tokenizer_bytes // len(categories)
        texts = [text for one in categories for text in sample(truncate(one.training(), _SCANNED * each), each)]
        (folder / "tokenizer.json").write_text(tokenizers.train(texts, data.vocab_size).text, encoding="utf-8")

    return tokenizers.load(make_once(site.cache / "tokenizers" / key, make, progress=site.progress) / "tokenizer.json")


def _make_tokens(one: CategoryTexts, tokenizer: Tokenizer, site: _Site) -> Path:
    name = one.config.name
    key = digest([RECIPE, _texts_key(one), tokenizer.hash])

    def make(folder: Path) -> None:
        held = one.validation()
        items = items_of_documents(f"val/{name}", held.excerpts, tokenizer)
        save_items(items, folder / "validation")
        write_tokens(one.training(held.hashes), tokenizer, folder, label=name, progress=site.progress)
        export_items(items, 0, site.progress)

    return make_once(site.cache / "tokens" / f"{name}-{key}", make, progress=site.progress)


def _make_items(one: EvalSetConfig, known: Origin, *, tokenizer: Tokenizer, site: _Site) -> Path:
    key = digest([RECIPE, _settings(one, known), tokenizer.hash])

    def make(folder: Path) -> None:
        rows = read_rows(one.path, config=one.config, split=one.split, embedded=site.embedded, revision=known.revision)
        items, dropped = items_of_rows(rows, one, tokenizer)
        save_items(items, folder)
        export_items(items, dropped, site.progress)

    return make_once(site.cache / "items" / f"{one.name}-{key}", make, progress=site.progress)


def _texts_key(one: CategoryTexts) -> dict[str, Any]:
    """What decides a category's texts."""
    validation = one.config.validation
    settings: dict[str, Any] = to_plain(one.config)
    return settings | {
        "sources": [_settings(source, known) for source, known in zip(one.config.sources, one.origins, strict=True)],
        "validation": _settings(validation, one.validation_origin) if validation and one.validation_origin else None,
    }


def _settings(source: SourceConfig | EvalSetConfig, known: Origin) -> dict[str, Any]:
    """What decides a source's rows, wherever it lies and however it is fetched."""
    kept = {key: value for key, value in kept_settings(to_plain(source)).items() if key not in ("path", "streaming")}
    return kept | {"fingerprint": known.fingerprint}


def _assembled(
    site: _Site,
    tokenizer: Tokenizer,
    context: int,
    *,
    tokens: Mapping[str, Path],
    sets: Mapping[str, Path],
    manifest: Mapping[str, Any],
) -> PreparedData:
    categories = {name: open_tokens(folder) for name, folder in tokens.items()}
    data_hash = digest([[folder.name for folder in (*tokens.values(), *sets.values())], tokenizer.hash])
    prepared = PreparedData(
        folder=site.cache / "data" / data_hash,
        data_hash=data_hash,
        tokenizer=tokenizer,
        categories=categories,
        validation={name: open_items(f"val/{name}", folder / "validation") for name, folder in tokens.items()},
        sets={name: open_items(name, folder) for name, folder in sets.items()},
        context=context,
        notices=_notices(manifest),
        facts=_facts(manifest, categories),
    )
    make_once(prepared.folder, lambda folder: _describe(prepared, folder), progress=site.progress)
    return prepared


def _describe(prepared: PreparedData, folder: Path) -> None:
    """``data.json``, what the data are, for the record; and the tokenizer beside it."""
    described = {
        "data_hash": prepared.data_hash,
        "tokenizer_hash": prepared.tokenizer.hash,
        "vocab_size": prepared.tokenizer.vocab_size,
        "categories": {
            name: {"tokens": one.n_tokens, "documents": one.n_documents, "bytes": one.n_bytes}
            for name, one in prepared.categories.items()
        },
        "sets": {
            items.name: {"items": len(items), "target_tokens": int(items.completion_tokens.sum())}
            for items in (*prepared.validation.values(), *prepared.sets.values())
        },
        "facts": asdict(prepared.facts) if prepared.facts else None,
        "notices": list(prepared.notices),
    }
    (folder / "data.json").write_text(json.dumps(described, indent=1), encoding="utf-8")
    (folder / "tokenizer.json").write_text(prepared.tokenizer.text, encoding="utf-8")


def _corpora_folder(data: DataConfig) -> Path | None:
    """Return the folder of ``FOLDER/CORPUS/train.parquet``, the local file of the category whose facts are counted."""
    paths = [Path(category.sources[0].path) for category in data.categories if category.name == _FACTS_CATEGORY]
    return paths[0].absolute().parents[1] if paths and paths[0].is_file() else None


def _manifest(folder: Path | None) -> Mapping[str, Any]:
    """Return the manifest that ``lm.data.corpora`` wrote to a folder; empty for other folders."""
    if folder is None or not (folder / "manifest.json").is_file():
        return {}
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except ValueError:  # a file of that name that another program wrote
        return {}
    return manifest if isinstance(manifest, dict) and "recipe" in manifest else {}


def _notices(manifest: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(
        " ".join(str(source[key]) for key in ("name", "version", "licence") if source.get(key))
        for source in manifest.get("sources", ())
    )


def _facts(manifest: Mapping[str, Any], categories: Mapping[str, TokenArray]) -> FactCount | None:
    facts = manifest.get("facts")
    if not facts or _FACTS_CATEGORY not in categories:
        return None
    tokens = categories[_FACTS_CATEGORY]
    density = float(facts["mentions_per_byte"]) * tokens.n_bytes / tokens.n_tokens
    return FactCount(
        category=_FACTS_CATEGORY, count=int(facts["count"]), bits=float(facts["bits"]), mentions_per_token=density
    )
