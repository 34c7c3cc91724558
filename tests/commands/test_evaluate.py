"""Checkpoints of Hugging Face against losses computed by hand, published sizes, a planted law, and bad folders."""

import csv
import importlib.util
import io
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_status import client
from test_ui import state

from skillscale.cli import COMMANDS, main
from skillscale.config import EvalSetConfig, SkillConfig, SkillsConfig, load
from skillscale.config.options import SourceOptions
from skillscale.errors import DivergedError, InputError
from skillscale.lm.evaluation import hf_model
from skillscale.lm.evaluation.checkpoints import EvaluationTexts, measure
from skillscale.lm.evaluation.hf_folder import open_folder
from skillscale.lm.evaluation.hf_model import read_model_size
from skillscale.point import DesignPoint, Mix
from skillscale.record import Measurement, RunRecord, RunState
from skillscale.tables.read import evaluated_table, read_runs
from skillscale.tracking import StudyStore

# MLflow 3.17 on SQLAlchemy 2.1
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")

SAMPLES = Path(__file__).parents[1] / "samples"
_SPEC = importlib.util.spec_from_file_location("samples_checkpoints", SAMPLES / "checkpoints.py")
samples = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(samples)

# Prompts that end within a word, a number and beside letters of two bytes; a completion and a prompt beyond the context
PAIRS = (
    ("", "amber basin cedar"), ("Question: what?\nAnswer:", " north"), ("valley", "water"), ("naï", "ve café éé"),
    ("", " ".join(samples.WORDS * 3)), ("yew " * 60, "ridge"), ("thorn 1", "23 456"), ("é", "é"),
)  # fmt: skip
TEXTS = EvaluationTexts(sets={"made": PAIRS}, data_hash="made")
SKILLS = SkillsConfig(
    name="made",
    sets=(EvalSetConfig(name="made", path="made.jsonl"),),
    skills=(SkillConfig(name="making", hypothesis=("made",)),),
)
CONTEXT = 32
PUBLISHED = {  # parameters in all, and without lookup tables and head
    "pythia-70m": (70_426_624, 18_915_328),
    "gpt2": (124_439_808, 124_439_808 - (50_257 + 1_024) * 768),
    "llama-2-7b": (6_738_415_616, 6_738_415_616 - 2 * 32_000 * 4_096),
}


def config_of(kind):
    """Small ones of three families, and those whose sizes were published."""
    import transformers

    neox, llama = transformers.GPTNeoXConfig, transformers.LlamaConfig
    tiny = {"hidden_size": 16, "num_hidden_layers": 2, "bos_token_id": 0, "eos_token_id": 0}
    made = {
        "gpt2": transformers.GPT2Config,
        "pythia-70m": lambda: neox(
            vocab_size=50_304, hidden_size=512, num_hidden_layers=6, num_attention_heads=8, intermediate_size=2_048
        ),
        "llama-2-7b": lambda: llama(vocab_size=32_000),
        "tiny-gpt2": lambda: transformers.GPT2Config(vocab_size=330, n_positions=64, n_embd=16, n_layer=2, n_head=2),
        "tiny-neox": lambda: neox(
            vocab_size=352, num_attention_heads=2, intermediate_size=32, max_position_embeddings=64, **tiny
        ),
        "tiny-llama": lambda: llama(
            vocab_size=320, num_attention_heads=4, num_key_value_heads=2, intermediate_size=24,
            tie_word_embeddings=True, **tiny,
        ),
    }[kind]()  # fmt: skip
    made.architectures = [transformers.AutoModelForCausalLM._model_mapping[type(made)].__name__]
    return made


def write_model(folder, config, *, sharpness=30.0):
    """Random weights, made larger so that logits tell tokens apart, and the tokenizer of the samples."""
    import transformers

    transformers.logging.disable_progress_bar()
    torch.manual_seed(5)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(sharpness)
    model.save_pretrained(folder)
    samples.write_tokenizer(folder, samples.texts())
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder for each family."""
    root = tmp_path_factory.mktemp("models")
    return {kind: write_model(root / kind, config_of(kind)) for kind in ("tiny-gpt2", "tiny-neox", "tiny-llama")}


@pytest.fixture
def folder(models, tmp_path):
    """A copy that a test may spoil."""
    return Path(shutil.copytree(models["tiny-gpt2"], tmp_path / "spoilt"))


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    root = tmp_path_factory.mktemp("family")
    samples.write(root)
    return root


def change(file, **values):
    """Keys of a JSON file; None drops one."""
    plain = json.loads(file.read_text()) | values
    file.write_text(json.dumps({key: value for key, value in plain.items() if value is not None}))


def by_hand(folder, context):
    """NLL, target tokens and bytes of each item: one text after the other, in float64, tokens told apart by bytes."""
    import tokenizers
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    outcome = []
    for prompt, completion in PAIRS:
        encoded = tokenizer.encode(prompt + completion, add_special_tokens=False)
        ends = np.cumsum([len(token) for token in encoded.tokens])  # byte-level: a sign stands for a byte
        ids = [0, *encoded.ids]
        targets = [at for at, end in enumerate(ends, 1) if end > len(prompt.encode())]
        pieces = -(-len(targets) // context)
        nll = 0.0
        for piece in range(pieces):
            part = targets[piece * len(targets) // pieces : (piece + 1) * len(targets) // pieces]
            start = max(0, part[-1] - context)
            window = torch.tensor([[0, *ids[start + 1 : part[-1] + 1]]])
            with torch.no_grad():
                logs = torch.log_softmax(model(window[:, :-1]).logits[0], dim=-1)
            nll -= sum(float(logs[at - start - 1, ids[at]]) for at in part)
        outcome.append((nll, len(targets), len(completion.encode())))
    return np.array(outcome).T


# Losses


@pytest.mark.parametrize("kind", ["tiny-gpt2", "tiny-neox", "tiny-llama"])
def test_losses_are_those_computed_by_hand(models, kind):
    nll, tokens, n_bytes = by_hand(models[kind], CONTEXT)
    assert nll.sum() / tokens.sum() > 1.2 * math.log(320), "these weights tell nothing apart"
    folder = open_folder(models[kind])
    for dtype, close in (("float64", 1e-6), ("float32", 1e-4)):
        model = hf_model.load_checkpoint(folder, dtype=dtype, device="cpu")
        outcome = measure(model, folder, TEXTS, SKILLS, context=CONTEXT).skills["making"]
        assert outcome.loss == pytest.approx(nll.sum() / tokens.sum(), rel=close)
        assert outcome.bpb == pytest.approx(nll.sum() / n_bytes.sum() / math.log(2), rel=close)
        rest = nll - nll.sum() / n_bytes.sum() * n_bytes
        spread = math.sqrt(len(PAIRS)) * np.std(rest, ddof=1) / n_bytes.sum() / math.log(2)
        assert outcome.bpb_sem == pytest.approx(spread, rel=10 * close)
        assert (outcome.count, outcome.tokens) == (len(PAIRS), tokens.sum())


@pytest.mark.parametrize("kind", ["tiny-neox", "tiny-llama"])
def test_batches_and_padding_change_nothing(models, kind):
    folder = open_folder(models[kind])
    model = hf_model.load_checkpoint(folder, dtype="float32", device="cpu")
    outcome = [
        measure(model, folder, TEXTS, SKILLS, context=CONTEXT, batch_tokens=size).skills["making"].bpb
        for size in (1, 70, 100_000)
    ]
    assert outcome == pytest.approx([outcome[0]] * 3, rel=1e-6)


def test_another_tokenizer_of_the_same_model_of_bytes_gives_the_same_bits(models, tmp_path):
    """Logits all alike: ln V a token, so that bits per byte tell how many tokens the tokenizer needs, and no more."""
    flat = write_model(tmp_path / "flat", config_of("tiny-llama"), sharpness=0.0)
    folder = open_folder(flat)
    outcome = measure(
        hf_model.load_checkpoint(folder, dtype="float32", device="cpu"), folder, TEXTS, SKILLS, context=64
    )
    value = outcome.skills["making"]
    n_bytes = sum(len(completion.encode()) for _, completion in PAIRS)
    assert value.loss == pytest.approx(math.log(320), rel=1e-6)
    assert value.bpb == pytest.approx(math.log2(320) * value.tokens / n_bytes, rel=1e-6)


def test_a_tokenizer_that_loses_text_is_refused(folder):
    plain = json.loads((folder / "tokenizer.json").read_text())
    plain["model"]["vocab"] = {"<unk>": 1, "a": 2, "b": 3}
    plain["model"] |= {"merges": [], "unk_token": "<unk>"}
    (folder / "tokenizer.json").write_text(json.dumps(plain))
    opened = open_folder(folder)
    model = hf_model.load_checkpoint(opened, dtype="float32", device="cpu")
    with pytest.raises(InputError, match=r"can't write set made: \d+ of its target tokens are unknown"):
        measure(model, opened, TEXTS, SKILLS, context=CONTEXT)


# What a folder tells


@pytest.mark.parametrize("kind", list(PUBLISHED))
def test_sizes_are_those_that_were_published(folder, kind):
    config_of(kind).save_pretrained(folder)
    size = read_model_size(open_folder(folder))
    assert (size.n_params, size.n_params_nonembed) == PUBLISHED[kind]
    assert size.n_params_embed == size.n_params - size.n_params_nonembed


def test_a_tied_head_counts_once(models):
    llama = read_model_size(open_folder(models["tiny-llama"]))
    assert llama.n_params_embed == 320 * 16
    assert (llama.depth, llama.width, llama.n_heads, llama.vocab_size) == (2, 16, 4, 320)


@pytest.mark.parametrize(
    ("tokenizer", "model", "requested", "first"),
    [
        ({"bos_token": "a"}, {"bos_token_id": 70}, "", "a"),
        ({"bos_token": {"content": "b"}}, {}, "", "b"),
        ({"eos_token": "c"}, {"bos_token_id": 0}, "", "<|endoftext|>"),  # eos may end a turn of a chat
        ({"eos_token": "c"}, {"bos_token_id": None}, "", "c"),
        ({}, {"bos_token_id": None, "eos_token_id": [0, 5]}, "", "<|endoftext|>"),
        ({"bos_token": "a"}, {}, "d", "d"),
    ],
)
def test_what_stands_before_every_text(folder, tokenizer, model, requested, first):
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    change(folder / "config.json", **{"bos_token_id": None, "eos_token_id": None} | model)
    opened = open_folder(folder, first_token=requested)
    assert opened.first_token == first
    assert opened.tokenizer.decode([opened.tokenizer.end_of_text]) == first


def test_what_the_hub_says_of_a_folder(folder, tmp_path):
    commit = "0123456789abcdef0123456789abcdef01234567"
    assert open_folder(folder).revision == ""
    place = folder / ".cache/huggingface/download/config.json.metadata"
    place.parent.mkdir(parents=True)
    place.write_text(f"{commit}\netag\n1.0\n")
    assert open_folder(folder).revision == commit
    snapshot = tmp_path / "models--lab--tiny-1b" / "snapshots" / commit
    shutil.copytree(folder, snapshot)
    opened = open_folder(snapshot)
    assert (opened.name, opened.revision) == ("lab/tiny-1b", commit)


def test_the_digest_is_of_what_is_read(folder, tmp_path):
    import hashlib

    weights = (folder / "model.safetensors").read_bytes()
    hashes = open_folder(folder).sha256(tmp_path)
    assert hashes["model.safetensors"] == hashlib.sha256(weights).hexdigest()
    first = open_folder(folder).digest(tmp_path)
    (folder / "README.md").write_text("nothing of it is read")
    assert open_folder(folder).digest(tmp_path) == first
    assert open_folder(folder, first_token="a").digest(tmp_path) != first
    (folder / "model.safetensors").write_bytes(weights[:-1] + b"x")
    assert open_folder(folder).digest(tmp_path) != first


def _only_pickles(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _part_lost(folder, name="model-00002-of-00002.safetensors"):
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))


def _no_first(folder):
    (folder / "tokenizer_config.json").unlink()
    change(folder / "config.json", bos_token_id=None, eos_token_id=None)


BAD = {
    r"has no config.json": lambda folder: (folder / "config.json").unlink(),
    r"config.json can't be read as JSON": lambda folder: (folder / "config.json").write_text("{"),
    r"has no tokenizer.json. Write one": lambda folder: (folder / "tokenizer.json").unlink(),
    r"is no tokenizer.json": lambda folder: (folder / "tokenizer.json").write_text("{}"),
    r"but pytorch_model.bin, which may run code.*save_pretrained": _only_pickles,
    r"has no model.safetensors. Give a folder": lambda folder: (folder / "model.safetensors").unlink(),
    r"names model-00002-of-00002.safetensors, not in the folder": _part_lost,
    r"names \.\./elsewhere, not in the folder": lambda folder: _part_lost(folder, "../elsewhere"),
    r"ids up to 319, but the model embeds 300": lambda folder: change(folder / "config.json", vocab_size=300),
    r"is T5ForConditionalGeneration, which is no causal": lambda folder: change(
        folder / "config.json", architectures=["T5ForConditionalGeneration"], model_type="t5"
    ),
    r"is OwnModel, which is no causal.*code in a checkpoint is never run": lambda folder: change(
        folder / "config.json", architectures=["OwnModel"], auto_map={"AutoModelForCausalLM": "own.OwnModel"}
    ),
    r"is not usable: .*own_type|is of type own_type": lambda folder: change(
        folder / "config.json", architectures=None, model_type="own_type"
    ),
    r"is quantized. Give the weights": lambda folder: change(
        folder / "config.json", quantization_config={"quant_method": "gptq"}
    ),
    r"can't build .* from its config.json": lambda folder: change(folder / "config.json", n_embd=17),
    r"no token that begins a text.*--first_token": _no_first,
}


@pytest.mark.parametrize("reason", list(BAD))
def test_folders_that_cannot_be_measured_are_refused_before_any_weight_is_read(folder, reason):
    BAD[reason](folder)
    with pytest.raises(InputError, match=reason):
        read_model_size(open_folder(folder))


def test_weights_of_another_model_are_refused(folder):
    change(folder / "config.json", n_layer=3)
    with pytest.raises(InputError, match=r"lacks the weights transformer\.h\.2.* and \d+ more"):
        hf_model.load_checkpoint(open_folder(folder), dtype="float32", device="cpu")
    (folder / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"spoilt can't be read: .*\. Download it again"):
        hf_model.load_checkpoint(open_folder(folder), dtype="float32", device="cpu")


def test_a_model_that_sees_the_future_is_refused(tmp_path):
    """transformers calls this one a causal language model, and lets every position see all others."""
    import transformers

    config = transformers.BertConfig(
        vocab_size=320, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, bos_token_id=0
    )
    config.architectures = ["BertLMHeadModel"]
    folder = open_folder(write_model(tmp_path / "bert", config))
    with pytest.raises(InputError, match="bert is not causal"):
        hf_model.load_checkpoint(folder, dtype="float32", device="cpu")


# The command


def run(*words, code=0):
    out = io.StringIO()
    assert main([*map(str, words), "--json"], COMMANDS, out) == code
    return json.loads(out.getvalue()) if code < 2 else None


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """One store for all: making one takes longer than measuring a checkpoint."""
    return ["--tracking", f"sqlite:///{tmp_path_factory.mktemp('store') / 'runs.db'}"]


def given(planted, place):
    cache = planted.parent / "cache"
    return [*place, "--skills", planted / "skills.yaml", "--context", 64, "--cache", cache]


def table_of(planted, tmp_path, keep, **more):
    """A table of some checkpoints of the family, in which folders are named from where it lies."""
    rows = [
        row for row in csv.DictReader((planted / "checkpoints.csv").read_text().splitlines()) if keep(row["checkpoint"])
    ]
    path = tmp_path / "some.csv"
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, [*rows[0], *more])
        writer.writeheader()
        writer.writerows(row | more | {"checkpoint": planted / row["checkpoint"]} for row in rows)
    return path


def test_a_family_becomes_runs_whose_fit_finds_the_planted_law(planted, place, tmp_path, monkeypatch):
    words = given(planted, place)
    table = table_of(planted, tmp_path, lambda name: "-32-" not in name and not name.endswith("-32m"))
    output = run("evaluate", "--study", "family", "--table", table, *words)
    assert [(checkpoint["state"], checkpoint["new"]) for checkpoint in output["runs"]] == [("finished", True)] * 9
    for checkpoint in output["runs"]:
        loss = samples.planted(checkpoint["point"]["n_params"], checkpoint["point"]["n_tokens"])
        assert checkpoint["skills"]["words"]["bpb"] * math.log(2) == pytest.approx(loss, rel=1e-6)
    tags = client(StudyStore.open(place[1])).get_experiment_by_name("family").tags
    assert "ended, 9 of 9 points done" in tags["mlflow.note.content"]
    shown = state(tags)["selectedColumns"]
    assert "metrics.`skill_bpb/words`" in shown
    assert "metrics.`skill_loss/words`" not in shown, "tokens of another tokenizer don't compare"
    fitted = run("fit", "--study", "family", "--law", "chinchilla", "--laws.bootstrap", "laplace", *place)
    assert fitted["skills"]["words"]["theta"] == pytest.approx(samples.LAW, rel=1e-3)

    def never(*_args, **_kwargs):
        raise AssertionError("what the study has is measured again")

    monkeypatch.setattr(hf_model, "load_checkpoint", never)
    again = run("evaluate", "--study", "family", "--table", table, *words)
    assert [run["new"] for run in again["runs"]] == [False] * 9
    assert [run["skills"] for run in again["runs"]] == [run["skills"] for run in output["runs"]]


def test_checkpoints_of_one_training_go_together_and_sizes_are_told_in_two_ways(planted, place, tmp_path):
    words = given(planted, place)
    table = table_of(planted, tmp_path, lambda name: name.startswith("tiny-16-"), training_run="wood")
    run("evaluate", "--study", "one", "--table", table, *words)
    source = SourceOptions(tracking=place[1])
    config = load(overrides={"study.name": "one"})
    runs = read_runs(source, config)
    assert (set(runs.table.runs["cluster"]), set(runs.table.runs["mix"])) == ({"wood"}, {"woods"})
    assert runs.table.categories == ()
    assert runs.table.notes[0].startswith("losses are in nats per byte")
    assert runs.table.runs["sem/words"].gt(0).all()
    assert {record.checkpoint.first_token for record in runs.records} == {"<|endoftext|>"}
    without = read_runs(replace(source, n_convention="nonembed"), config).table.runs["N"]
    assert (runs.table.runs["N"] - without).tolist() == [16 * (320 + 64)] * 4
    with pytest.raises(InputError, match="total or nonembed, not 'active'"):
        read_runs(replace(source, n_convention="active"), config)


def test_both_splits_and_their_sets_are_told_in_nats_per_byte():
    def measured(bits):
        return Measurement(loss=9.0, sem=0.9, bpb=bits, bpb_sem=bits / 10, count=2, tokens=2)

    record = RunRecord(
        run_id="one", study="made", state=RunState.FINISHED, reason="",
        point=DesignPoint(n_params=100, n_tokens=2_000, mix=Mix({"code": 0.5, "prose": 0.5})),
        skills={"making": measured(1.0)}, skills_held_out={"making": measured(2.0)},
        sets={"a": measured(3.0), "b": measured(4.0), "c": measured(5.0)},
    )  # fmt: skip
    failed = replace(record, run_id="two", state=RunState.FAILED, reason="no numbers")
    skill = {"name": "making", "hypothesis": ["a", "b"], "held_out": ["c"], "category": "code"}
    table = evaluated_table([record, failed], {"skills": [skill]})
    nats = {"making": 1, "sem/making": 0.1, "making held-out": 2, "set/a": 3, "set/b": 4}
    (row,) = table.runs.to_dict("records")
    assert {name: row[name] / math.log(2) for name in nats} == pytest.approx(nats)
    assert (row["cluster"], row["mix/code"], table.categories) == ("one", 0.5, ("code", "prose"))
    assert (table.judged_skills, table.skill_categories) == (("making",), {"making": "code"})
    assert [excluded.reason for excluded in table.excluded] == ["it is failed: no numbers"]


def test_a_checkpoint_is_one_point_of_a_study(planted, place, capsys):
    words = given(planted, place)
    excluded = ["evaluate", "--study", "single", "--checkpoint", planted / "tiny-16-2m", *words]
    (first,) = run(*excluded, "--n_tokens", "2e6", "--mix", "code=.5,prose=.5")["runs"]
    assert first["point"]["mix"] == {"code": 0.5, "prose": 0.5}
    run(*excluded, "--n_tokens", "3e6", "--mix", "code=.5,prose=.5", code=2)
    assert "with N 12.74k, D 2M, mix code=0.5,prose=0.5, seed 0, now N 12.74k, D 3M" in capsys.readouterr().err
    other = ["evaluate", "--study", "single", "--checkpoint", planted / "tiny-16-8m", *words, "--n_tokens", "2e6"]
    run(*other, "--mix", "code=.5,prose=.5", code=2)
    assert "as tiny-16-2m, with other files" in capsys.readouterr().err
    assert run(*other, "--mix", "code=.5,prose=.5", "--seed", "1")["runs"][0]["new"]
    run(*other, "--dtype", "float64", code=2)
    assert "dtype was 'float32', now 'float64'" in capsys.readouterr().err


def test_logits_that_are_no_numbers_make_a_failed_run_that_can_be_mended(planted, place, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(planted / "tiny-16-8m", tmp_path / "broken"))
    weights = load_file(folder / "model.safetensors")
    broken = {name: weight * math.nan if name.endswith("ln_f.bias") else weight for name, weight in weights.items()}
    save_file(broken, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(DivergedError, match="not finite in float32"):
        hf_model.load_checkpoint(open_folder(folder), dtype="float32", device="cpu")
    words = given(planted, place)
    words = ["evaluate", "--study", "mended", "--checkpoint", folder, "--n_tokens", "8e6", *words]
    (failed,) = run(*words, code=1)["runs"]
    assert (failed["state"], failed["new"], failed["skills"]) == ("failed", True, {})
    assert failed["reason"].startswith("the logits of broken are not finite in float32. Try another --dtype")
    (unchanged,) = run(*words, code=1)["runs"]
    assert (unchanged["state"], unchanged["new"]) == ("failed", False)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    (mended,) = run(*words, "--retry_failed")["runs"]
    assert (mended["state"], mended["new"]) == ("finished", True)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--n_tokens", "3e11"], "needs either --checkpoint FOLDER with --n_tokens D, or --table CSV"),
        (["--checkpoint", "{}/tiny-16-2m"], "a folder does not record the tokens"),
        (["--checkpoint", "{}/nowhere", "--n_tokens", "1e6"], "nowhere is no folder"),
        (["--checkpoint", "{}/tiny-16-2m", "--n_tokens", "1e6", "--mix", "a=.5"], "mix must sum to 1"),
        (["--checkpoint", "{}/tiny-16-2m", "--n_tokens", "1e6", "--context", "65"], "at most 64 tokens"),
        (["--checkpoint", "{}/tiny-16-2m", "--n_tokens", "1e6", "--first_token", "nix"], "has no token 'nix'"),
        (["--checkpoint", "{}/tiny-16-2m", "--n_tokens", "1e6", "--skills", "singing"], "no skills named 'singing'"),
        (["--checkpoint", "{}/tiny-16-2m", "--n_tokens", "1e6", "--study", "main"], "a study that is trained here"),
        (["--table", "{}/checkpoints.csv", "--mix", "a"], "--mix goes with --checkpoint"),
        (["--table", "{}/skills.yaml"], "takes checkpoint, n_tokens, mix, seed, training_run"),
    ],
)
def test_what_is_asked_badly_is_refused(planted, tmp_path, capsys, words, reason):
    requested = [word.format(planted) for word in words]
    rest = [str(word) for word in given(planted, ["--tracking", f"sqlite:///{tmp_path / 'runs.db'}"])]
    if "--skills" in requested:
        del rest[rest.index("--skills") : rest.index("--skills") + 2]
    if "--context" in requested:
        del rest[rest.index("--context") : rest.index("--context") + 2]
    study = [] if "--study" in requested else ["--study", "asked"]
    run("evaluate", *study, *requested, *rest, code=2)
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "runs.db").exists()


def test_every_bad_row_of_a_table_is_named(planted, place, tmp_path, capsys):
    path = tmp_path / "bad.csv"
    path.write_text("checkpoint,n_tokens\nnone,1e6\nfamily,many\n")
    words = given(planted, place)
    run("evaluate", "--study", "bad", "--table", path, *words, code=2)
    output = capsys.readouterr().err
    assert "none is no folder" in output
    assert "n_tokens of" in output
    path.write_text(f"checkpoint,n_tokens\n{planted}/tiny-16-2m,1e6\n{planted}/tiny-16-8m,1e6\n")
    run("evaluate", "--study", "bad", "--table", path, *words, code=2)
    assert "have one N, D, mix and seed" in capsys.readouterr().err
