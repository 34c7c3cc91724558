"""From a config to token arrays and evaluation items, made once and cached by content.

    CACHE/tokenizers/HASH/  CACHE/tokens/CATEGORY-HASH/  CACHE/items/SET-HASH/  CACHE/data/HASH/data.json

A hash covers the settings, the sources' content and the tokenizer. A change in one set or category therefore rebuilds
only that one, and the same content at another path has the same hash.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

from skillscale.config import CategoryConfig, Config, DataConfig, EvalSetConfig, SourceConfig, kept_settings
from skillscale.errors import InputError
from skillscale.formatting import format_count, to_plain
from skillscale.lm.data import tokenizer as tokenizers
from skillscale.lm.data.cache import Progress, explain_full_disk, make_once
from skillscale.lm.data.documents import EMBEDDED, read_rows
from skillscale.lm.data.fingerprints import Origin, find_origin
from skillscale.lm.data.mixture import count_blocks
from skillscale.lm.data.splits import CategoryTexts, sample, truncate
from skillscale.lm.data.token_arrays import TokenArray, open_tokens, write_tokens
from skillscale.lm.data.tokenizer import Tokenizer
from skillscale.lm.evaluation.items import (
    ItemSet,
    make_items_from_documents,
    make_items_from_rows,
    open_items,
    report_items,
    save_items,
)
from skillscale.point import DesignPoint, digest

Manifest: TypeAlias = Mapping[str, Any]  # the manifest.json in a folder of corpora
RECIPE = 1  # raise it when the same settings and sources give other arrays
_FACTS_CATEGORY = "knowledge"
_REPEATED = 1.05  # epochs of a category above which a warning says so
_SCANNED = 32  # the tokenizer's sample of a category comes from this many times its size


@dataclass(frozen=True, kw_only=True)
class FactCount:
    """The facts that a category's training tokens mention. ``bits``: their entropy, an upper bound."""

    category: str
    count: int
    bits: float
    mentions_per_token: float

    def exposures(self, n_tokens: float) -> float:
        """Return the mean mentions of a fact in ``n_tokens`` tokens of the category."""
        return self.mentions_per_token * n_tokens / self.count


@dataclass(frozen=True, kw_only=True)
class PreparedData:
    """Data ready to train on and to evaluate. ``folder`` has ``data.json``; ``notices``: the sources' licences."""

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
        """Return a warning for each category that the point must repeat, with the number of epochs.

        Raises:
            InputError: a category of its mix does not fill one sequence.
        """
        warnings = []
        for name, share in point.mix.shares.items():
            count_blocks(self.categories[name], self.context, name=name)
            needed, available = share * point.n_tokens, self.categories[name].n_tokens
            if needed > _REPEATED * available:
                warnings.append(
                    f"{name} has {format_count(available)} tokens, but {format_count(point.n_tokens)} at a share of "
                    f"{share:.3g} read {format_count(needed)}, {needed / available:.1f} epochs. Give more text or "
                    "fewer tokens."
                )
        return warnings


@dataclass(frozen=True, kw_only=True)
class _Workspace:
    """Where the data are prepared: the cache, the embedded corpora if the config names them, and the progress log."""

    cache: Path
    embedded: Path | None
    progress: Progress

    def find_origin(self, source: SourceConfig | EvalSetConfig) -> Origin:
        return find_origin(source.path, source.split, embedded=self.embedded, cache=self.cache)


def prepare(config: Config, cache: Path, *, progress: Progress) -> PreparedData:
    """Read, tokenise and cache all data that ``config`` trains on and evaluates; return at once if they are cached.

    Raises:
        InputError: a source, column or template is not usable.
        TrainingError: the disk is full.
    """
    with explain_full_disk(cache):
        embedded = embedded_corpora(_source_paths(config), config.data, cache, progress=progress)
        workspace = _Workspace(cache=cache, embedded=embedded, progress=progress)
        # Every error of a source, a set or a template comes before the long step, which is the tokens
        categories = [_check_category(category, workspace) for category in config.data.categories]
        origins = {settings.name: workspace.find_origin(settings) for settings in config.skills.sets}
        tokenizer = _make_tokenizer(config.data, categories, workspace)
        sets = {
            settings.name: _make_items(settings, origins[settings.name], tokenizer=tokenizer, workspace=workspace)
            for settings in config.skills.sets
        }
        tokens = {texts.config.name: _make_tokens(texts, tokenizer, workspace) for texts in categories}
        manifest = _read_manifest(embedded or _corpora_folder(config.data))
        return _assemble(workspace, tokenizer, config.model.context, tokens=tokens, sets=sets, manifest=manifest)


def embedded_corpora(paths: Iterable[str], data: DataConfig, cache: Path, *, progress: Progress) -> Path | None:
    """Return the folder of the embedded corpora, built if missing; None if no path names them."""
    if not any(path.startswith(EMBEDDED) for path in paths):
        return None
    from skillscale.lm.data.corpora import build

    folder: Path = build(cache, preset=data.preset, zipf_exponent=data.zipf_exponent, progress=progress)
    return folder


def _source_paths(config: Config) -> list[str]:
    """Return the paths of all data that are trained on or evaluated."""
    paths = [settings.path for settings in config.skills.sets]
    for category in config.data.categories:
        paths += [source.path for source in (*category.sources, category.validation) if source]
    return paths


def _check_category(category: CategoryConfig, workspace: _Workspace) -> CategoryTexts:
    if category.validation is None and category.validation_share == 0:
        raise InputError(
            f"category {category.name} has no validation set. Give `validation`, or a validation_share above 0."
        )
    if category.max_bytes is None and len({source.weight for source in category.sources}) > 1:
        raise InputError(
            f"category {category.name} has weights of sources, but reads all of each. Give max_bytes or no weights."
        )
    return CategoryTexts(
        config=category,
        origins=tuple(workspace.find_origin(source) for source in category.sources),
        validation_origin=workspace.find_origin(category.validation) if category.validation else None,
        embedded=workspace.embedded,
    )


def _make_tokenizer(data: DataConfig, categories: Sequence[CategoryTexts], workspace: _Workspace) -> Tokenizer:
    if data.tokenizer:
        loaded = tokenizers.load(Path(data.tokenizer))
        if loaded.vocab_size != data.vocab_size:
            raise InputError(
                f"{data.tokenizer} has {loaded.vocab_size} entries, but data.vocab_size, which model sizes are counted "
                f"with, is {data.vocab_size}. Give --data.vocab_size {loaded.vocab_size}."
            )
        return loaded
    key = digest([RECIPE, data.vocab_size, data.tokenizer_bytes, [_texts_key(texts) for texts in categories]])

    def make(folder: Path) -> None:
        workspace.progress(f"training a tokenizer of {data.vocab_size} entries")
        n_bytes = data.tokenizer_bytes // len(categories)
        training = [
            text for texts in categories for text in sample(truncate(texts.training(), _SCANNED * n_bytes), n_bytes)
        ]
        (folder / "tokenizer.json").write_text(tokenizers.train(training, data.vocab_size).text, encoding="utf-8")

    folder = make_once(workspace.cache / "tokenizers" / key, make, progress=workspace.progress)
    return tokenizers.load(folder / "tokenizer.json")


def _make_tokens(texts: CategoryTexts, tokenizer: Tokenizer, workspace: _Workspace) -> Path:
    name = texts.config.name
    key = digest([RECIPE, _texts_key(texts), tokenizer.hash])

    def make(folder: Path) -> None:
        held_out = texts.validation()
        items = make_items_from_documents(f"val/{name}", held_out.excerpts, tokenizer)
        save_items(items, folder / "validation")
        write_tokens(texts.training(held_out.hashes), tokenizer, folder, label=name, progress=workspace.progress)
        report_items(items, 0, workspace.progress)

    return make_once(workspace.cache / "tokens" / f"{name}-{key}", make, progress=workspace.progress)


def _make_items(settings: EvalSetConfig, origin: Origin, *, tokenizer: Tokenizer, workspace: _Workspace) -> Path:
    key = digest([RECIPE, _source_key(settings, origin), tokenizer.hash])

    def make(folder: Path) -> None:
        rows = read_rows(
            settings.path,
            config=settings.config,
            split=settings.split,
            embedded=workspace.embedded,
            revision=origin.revision,
        )
        items, dropped = make_items_from_rows(rows, settings, tokenizer)
        save_items(items, folder)
        report_items(items, dropped, workspace.progress)

    return make_once(workspace.cache / "items" / f"{settings.name}-{key}", make, progress=workspace.progress)


def _texts_key(texts: CategoryTexts) -> dict[str, Any]:
    """Return everything that decides a category's texts."""
    validation, origin = texts.config.validation, texts.validation_origin
    settings: dict[str, Any] = to_plain(texts.config)
    sources = zip(texts.config.sources, texts.origins, strict=True)
    return settings | {
        "sources": [_source_key(source, source_origin) for source, source_origin in sources],
        "validation": _source_key(validation, origin) if validation and origin else None,
    }


def _source_key(source: SourceConfig | EvalSetConfig, origin: Origin) -> dict[str, Any]:
    """Return everything that decides a source's rows, whatever its path and its way of reading."""
    kept = {key: value for key, value in kept_settings(to_plain(source)).items() if key not in ("path", "streaming")}
    return kept | {"fingerprint": origin.fingerprint}


def _assemble(
    workspace: _Workspace,
    tokenizer: Tokenizer,
    context: int,
    *,
    tokens: Mapping[str, Path],
    sets: Mapping[str, Path],
    manifest: Manifest,
) -> PreparedData:
    categories = {name: open_tokens(folder) for name, folder in tokens.items()}
    data_hash = digest([[folder.name for folder in (*tokens.values(), *sets.values())], tokenizer.hash])
    prepared = PreparedData(
        folder=workspace.cache / "data" / data_hash,
        data_hash=data_hash,
        tokenizer=tokenizer,
        categories=categories,
        validation={name: open_items(f"val/{name}", folder / "validation") for name, folder in tokens.items()},
        sets={name: open_items(name, folder) for name, folder in sets.items()},
        context=context,
        notices=_licence_notices(manifest),
        facts=_count_facts(manifest, categories),
    )
    make_once(prepared.folder, lambda folder: _write_description(prepared, folder), progress=workspace.progress)
    return prepared


def _write_description(prepared: PreparedData, folder: Path) -> None:
    """Write ``data.json``, the description of the data, and a copy of the tokenizer."""
    description = {
        "data_hash": prepared.data_hash,
        "tokenizer_hash": prepared.tokenizer.hash,
        "vocab_size": prepared.tokenizer.vocab_size,
        "categories": {
            name: {"tokens": tokens.n_tokens, "documents": tokens.n_documents, "bytes": tokens.n_bytes}
            for name, tokens in prepared.categories.items()
        },
        "sets": {
            items.name: {"items": len(items), "target_tokens": int(items.completion_tokens.sum())}
            for items in (*prepared.validation.values(), *prepared.sets.values())
        },
        "facts": asdict(prepared.facts) if prepared.facts else None,
        "notices": list(prepared.notices),
    }
    (folder / "data.json").write_text(json.dumps(description, indent=1), encoding="utf-8")
    (folder / "tokenizer.json").write_text(prepared.tokenizer.text, encoding="utf-8")


def _corpora_folder(data: DataConfig) -> Path | None:
    """Return the folder of ``FOLDER/CORPUS/train.parquet``, the local file of the category whose facts are counted."""
    paths = [Path(category.sources[0].path) for category in data.categories if category.name == _FACTS_CATEGORY]
    return paths[0].absolute().parents[1] if paths and paths[0].is_file() else None


def _read_manifest(folder: Path | None) -> Manifest:
    """Return the manifest that ``lm.data.corpora`` wrote to a folder; empty for other folders."""
    if folder is None or not (folder / "manifest.json").is_file():
        return {}
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except ValueError:  # a file of that name that another program wrote
        return {}
    return manifest if isinstance(manifest, dict) and "recipe" in manifest else {}


def _licence_notices(manifest: Manifest) -> tuple[str, ...]:
    return tuple(
        " ".join(str(source[key]) for key in ("name", "version", "licence") if source.get(key))
        for source in manifest.get("sources", ())
    )


def _count_facts(manifest: Manifest, categories: Mapping[str, TokenArray]) -> FactCount | None:
    facts = manifest.get("facts")
    if not facts or _FACTS_CATEGORY not in categories:
        return None
    tokens = categories[_FACTS_CATEGORY]
    density = float(facts["mentions_per_byte"]) * tokens.n_bytes / tokens.n_tokens
    return FactCount(
        category=_FACTS_CATEGORY,
        count=int(facts["count"]),
        bits=float(facts["bits"]),
        mentions_per_token=density,
    )
