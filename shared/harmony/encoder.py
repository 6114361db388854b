"""Pieces become token ids and back; only special pieces become special tokens."""

import codecs
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import accumulate, groupby
from pathlib import Path

from tokenizers import Tokenizer

from shared.harmony.render import HarmonyError, Piece

ENDOFTEXT, RETURN, CONSTRAIN, CHANNEL = 199999, 200002, 200003, 200005
START, END, MESSAGE, CALL = 200006, 200007, 200008, 200012
GENERATION_STOPS = (RETURN, CALL)
ROWS = 201088  # of the model's embedding: beyond the tokens that have a text it is padded

_EXPECTED = {
    "<|endoftext|>": ENDOFTEXT,
    "<|return|>": RETURN,
    "<|constrain|>": CONSTRAIN,
    "<|channel|>": CHANNEL,
    "<|start|>": START,
    "<|end|>": END,
    "<|message|>": MESSAGE,
    "<|call|>": CALL,
}
_CACHED_LENGTH = 512  # characters: headers and system messages repeat, contents do not


class Encoder:
    """gpt-oss's tokenizer (o200k_harmony), loaded once; safe to share between threads."""

    def __init__(self, path: str | Path) -> None:
        """Load `tokenizer.json`, given as the file or its directory.

        Raises:
            HarmonyError: the file is missing or its special tokens are not gpt-oss's.
        """
        file = Path(path) / "tokenizer.json" if Path(path).is_dir() else Path(path)
        if not file.is_file():
            raise HarmonyError(f"There is no tokenizer at {file}: give a gpt-oss tokenizer.json or its directory.")
        self._tokenizer = Tokenizer.from_file(str(file))
        # Despite its name this turns recognition off: "<|start|>" in a text is encoded as the characters it is made of.
        # https://huggingface.co/docs/tokenizers/api/tokenizer#tokenizers.Tokenizer.encode_special_tokens
        self._tokenizer.encode_special_tokens = True
        self._specials = {token.content: i for i, token in self._tokenizer.get_added_tokens_decoder().items()}
        self.special_ids = frozenset(self._specials.values())
        for text, token in _EXPECTED.items():
            if self._specials.get(text) != token:
                raise HarmonyError(f"{file} is not gpt-oss's tokenizer: {text} is not token {token} in it.")
        self._short_ids = lru_cache(maxsize=4096)(self._text_ids)
        self._short_aligned = lru_cache(maxsize=4096)(self._aligned)
        self.token_bytes = lru_cache(maxsize=None)(self._token_bytes)

    @property
    def vocab_size(self) -> int:
        """Number of tokens that have a text."""
        return self._tokenizer.get_vocab_size(with_added_tokens=True)

    def encode(self, pieces: Sequence[Piece]) -> list[int]:
        """Token ids of rendered pieces: one for a special piece, ordinary text without special tokens for all others.

        Lone surrogates, which JSON can smuggle in, become U+FFFD.
        """
        return self.align(pieces)[0]

    def align(self, pieces: Sequence[Piece]) -> tuple[list[int], list[int]]:
        """Token ids, and for each the index of the piece it comes from. Both have the same length.

        Neighbouring texts are joined before encoding, so the ids equal those of the whole text.

        Raises:
            HarmonyError: a special piece is not a special token.
        """
        ids: list[int] = []
        owners: list[int] = []
        for special, group in groupby(range(len(pieces)), key=lambda i: pieces[i].kind == "special"):
            run = list(group)
            if special:
                ids += [self._special_id(pieces[i].text) for i in run]
                owners += run
            elif len(run) == 1:
                text = pieces[run[0]].text
                found = self._short_ids(text) if len(text) <= _CACHED_LENGTH else self._text_ids(text)
                ids += found
                owners += run * len(found)
            else:
                found, places = self._short_aligned(tuple(pieces[i].text for i in run))
                ids += found
                owners += [run[place] for place in places]
        return ids, owners

    def decode(self, ids: Iterable[int]) -> str:
        """Text of tokens, special ones included. Broken UTF-8 becomes U+FFFD; ids without a text, nothing."""
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", "replace")

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """One text per token, for a viewer; joined they equal `decode(ids)`.

        A character spread over several tokens stands at the last of them; the others are empty.
        """
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        texts = [decoder.decode(self.token_bytes(token)) for token in ids]
        rest = decoder.decode(b"", final=True)
        if texts:
            texts[-1] += rest
        return texts

    def _special_id(self, text: str) -> int:
        if text not in self._specials:
            raise HarmonyError(f"{text!r} is not a special token of this tokenizer: make it a header or content piece.")
        return self._specials[text]

    def _text_ids(self, text: str) -> list[int]:
        return self._tokenizer.encode(_valid(text), add_special_tokens=False).ids

    def _aligned(self, texts: tuple[str, ...]) -> tuple[list[int], list[int]]:
        ends = list(accumulate(map(len, texts)))
        encoding = self._tokenizer.encode(_valid("".join(texts)), add_special_tokens=False)
        # The tokenizer trims leading blanks from offsets, so a token's last character says where it belongs.
        places = [min(bisect_right(ends, max(start, end - 1)), len(texts) - 1) for start, end in encoding.offsets]
        return encoding.ids, places

    def _token_bytes(self, token: int) -> bytes:
        """UTF-8 bytes of one token, possibly a part of a character; empty for an id without a text."""
        text = self._tokenizer.id_to_token(token) if 0 <= token < self.vocab_size else None
        if text is None:
            return b""
        return text.encode() if token in self.special_ids else bytes(_BYTE_OF[character] for character in text)


def _valid(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's byte-level alphabet: printable bytes stand for themselves, the others for U+0100 and up.

    Source: `bytes_to_unicode` in https://github.com/openai/gpt-2/blob/master/src/encoder.py
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


_BYTE_OF = _byte_alphabet()
