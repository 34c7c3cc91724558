"""Write a family of tiny checkpoints in Hugging Face's format, with a table of them and skills to measure them on.

    python tests/samples/checkpoints.py FOLDER

Nothing is trained. The weights are random but for the last layer, which makes every model say the same everywhere: the
frequencies of tokens, flattened until its loss on the skill is that of LAW. So what a fit is to find is known before.
"""

import csv
import json
import random
import sys
from pathlib import Path

import numpy as np

LAW = {"E": 0.86, "A": 7.0, "B": 80.0, "alpha": 0.35, "beta": 0.4}  # nats per byte
WIDTHS = (16, 32, 64, 128)
TOKENS = (2_000_000, 8_000_000, 32_000_000, 128_000_000)
VOCABULARY = 320
CONTEXT = 64
END = "<|endoftext|>"
WORDS = (
    *("amber", "basin", "cedar", "delta", "ember", "field", "grove", "heath", "inlet", "jetty", "knoll", "larch"),
    *("marsh", "north", "ocean", "pines", "quarry", "ridge", "shore", "thorn", "umber", "valley", "water", "yew"),
)


def texts() -> list[str]:
    """Sixty lines of words, some of which come more often than others."""
    rng = random.Random(3)
    weights = [1 / (1 + at) for at in range(len(WORDS))]
    return [" ".join(rng.choices(WORDS, weights, k=rng.randrange(8, 30))) for _ in range(60)]


def write_tokenizer(folder: Path, lines: list[str]) -> "object":
    """A byte-level BPE of the lines, as Hugging Face keeps one."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[END], initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(lines, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": END, "eos_token": END}))
    return tokenizer


def planted(n_params: float, n_tokens: float) -> float:
    """The loss of a checkpoint, nats per byte."""
    return LAW["E"] + LAW["A"] * n_params ** -LAW["alpha"] + LAW["B"] * n_tokens ** -LAW["beta"]


class Frequencies:
    """How often each token comes in the texts, and the loss of a model that says a flattened form of it everywhere."""

    def __init__(self, tokenizer, lines: list[str]) -> None:
        ids = [number for line in lines for number in tokenizer.encode(line, add_special_tokens=False).ids]
        self.counts = np.bincount(ids, minlength=VOCABULARY)
        self.logits = np.log(self.counts + 1e-2)
        self.n_bytes = sum(len(line.encode()) for line in lines)

    def loss(self, flatness: float) -> float:
        """Nats per byte at logits times ``flatness``: 1 is as observed, 0 all tokens alike."""
        logits = flatness * self.logits
        return float((self.counts * (np.logaddexp.reduce(logits) - logits)).sum()) / self.n_bytes

    def flatness(self, loss: float) -> float:
        """Where the loss is as wanted, by bisection."""
        low, high = 0.0, 1.0
        if not self.loss(high) < loss < self.loss(low):
            raise ValueError(f"a loss of {loss:.3f} is not between {self.loss(high):.3f} and {self.loss(low):.3f}")
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if self.loss(middle) > loss else (low, middle)
        return low


def write(folder: Path) -> None:
    """The family, ``checkpoints.csv``, ``skills.yaml`` and the texts of its one skill."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel, logging

    logging.disable_progress_bar()
    folder.mkdir(parents=True, exist_ok=True)
    lines = texts()
    (folder / "words.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    (folder / "skills.yaml").write_text(
        "name: words\n"
        f"sets: [{{name: lines, path: {folder.absolute() / 'words.jsonl'}, split: train, prompt: '', "
        "completion: '{text}'}]\n"
        "skills: [{name: words, hypothesis: [lines]}]\n"
    )
    rows = []
    for width in WIDTHS:
        for n_tokens in TOKENS:
            torch.manual_seed(width)
            config = GPT2Config(
                vocab_size=VOCABULARY, n_positions=CONTEXT, n_embd=width, n_layer=2, n_head=2, bos_token_id=0,
                eos_token_id=0,
            )  # fmt: skip
            model = GPT2LMHeadModel(config)
            name = f"tiny-{width}-{n_tokens // 1_000_000}m"
            (folder / name).mkdir(exist_ok=True)
            said = Frequencies(write_tokenizer(folder / name, lines), lines)
            n_params = sum(one.numel() for one in model.parameters())
            flatness = said.flatness(planted(n_params, n_tokens))
            with torch.no_grad():
                model.transformer.ln_f.weight.zero_()
                model.transformer.ln_f.bias.zero_()
                model.transformer.ln_f.bias[0] = flatness
                model.transformer.wte.weight[:, 0] = torch.from_numpy(said.logits)
            model.save_pretrained(folder / name)
            rows.append({"checkpoint": name, "n_tokens": n_tokens, "mix": "woods"})
    with (folder / "checkpoints.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
    told = ", ".join(f"{name} {value:g}" for name, value in LAW.items())
    exponent = LAW["beta"] / (LAW["alpha"] + LAW["beta"])
    sys.stdout.write(f"{len(WIDTHS) * len(TOKENS)} checkpoints; planted: {told}, a {exponent:.4g}\n")
