"""The tokenizer: byte-level BPE with one token for each digit, trained on the categories or loaded from a file."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import Tokenizer as Model
from tokenizers import decoders, models, pre_tokenizers, trainers

from skillscale.errors import InputError
from skillscale.point import digest

END_OF_TEXT = "<|endoftext|>"
_END_NAMES = (END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>")


class Tokenizer:
    """Text to token ids and back. Text that spells the end-of-text token is encoded as text, never as that token.

    Args:
        text: content of a ``tokenizer.json``.
        name: what messages call it.
        end_of_text: id of the token before every text. None: the token with one of the usual names.

    Raises:
        InputError: the text is no tokenizer, or has no end-of-text token.
    """

    def __init__(self, text: str, *, name: str = "tokenizer", end_of_text: int | None = None) -> None:
        try:
            self._model = Model.from_str(text)
        except Exception as error:  # the library raises bare Exception
            raise InputError(
                f"{name} is no tokenizer.json: {error}. Save it with Tokenizer.save of the tokenizers package."
            ) from error
        self._model.encode_special_tokens = True
        self._model.no_truncation()
        self._model.no_padding()
        self.text = text
        self.hash = digest(json.loads(text))
        self.end_of_text = self._end_of_text(name) if end_of_text is None else end_of_text

    def _end_of_text(self, name: str) -> int:
        for token in _END_NAMES:
            number = self._model.token_to_id(token)
            if number is not None:
                return int(number)
        raise InputError(f"{name} has no end-of-text token. Add one of {', '.join(_END_NAMES)} as a special token.")

    @property
    def vocab_size(self) -> int:
        """Number of rows that an embedding needs: the largest id plus one."""
        return max(self._model.get_vocab(with_added_tokens=True).values()) + 1

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text, without end-of-text."""
        return list(self._model.encode(text, add_special_tokens=False).ids)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of many texts, computed on every core that the process may use."""
        return [encoded.ids for encoded in self._model.encode_batch_fast(list(texts), add_special_tokens=False)]

    def encode_pair(self, prompt: str, completion: str) -> tuple[list[int], int]:
        """Return the token ids of ``prompt + completion`` as one text, and how many of them belong to the prompt.

        A token that contains a byte of the completion belongs to the completion.
        """
        encoded = self._model.encode(prompt + completion, add_special_tokens=False)
        ends = [end for _, end in encoded.offsets]
        return list(encoded.ids), sum(end <= len(prompt) for end in ends)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of token ids."""
        return str(self._model.decode(list(ids), skip_special_tokens=False))


def train(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Train a byte-level BPE of ``vocab_size`` entries on the texts; end-of-text has id 0.

    Raises:
        InputError: the texts have too few different words for this vocabulary.
    """
    model = Model(models.BPE())
    model.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    model.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    model.train_from_iterator(texts, trainer)
    if model.get_vocab_size() < vocab_size:
        raise InputError(
            f"the texts give a vocabulary of {model.get_vocab_size()}, but data.vocab_size is {vocab_size}. "
            f"Lower it to {model.get_vocab_size()} or give more text."
        )
    return Tokenizer(model.to_str())


def load(path: Path) -> Tokenizer:
    """Load the tokenizer of a ``tokenizer.json``.

    Raises:
        InputError: the file is missing or no tokenizer.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"tokenizer file {path} can't be read: {error}. Give a tokenizer.json, or none.") from error
    return Tokenizer(text, name=f"tokenizer file {path}")
