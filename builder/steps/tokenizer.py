"""Texts → ids of a `tokenizer.json`. A step of build-repo; it needs numpy and tokenizers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PADDING = ("longest", "max_length")
PAD_TOKENS = ("[PAD]", "<pad>", "<|pad|>", "<|endoftext|>", "</s>")
TEXTS = (
    "hello world",
    "The quick brown fox jumps over the lazy dog.",
    "naïve café, 東京 and 🦊",
    "",
    "A sentence that is somewhat longer than the others, so that lengths differ within one request of several texts.",
    "42",
    "What is the capital of France?",
    "print('x' * 3)",
    "word " * 300,
    "Ünïcödé\tand\nwhite  space",
)


class Tokenizer:
    """Texts in, `input_ids`, `attention_mask` and `token_type_ids` out, as int64."""

    def __init__(  # noqa: PLR0913 - the words of the spec
        self,
        *,
        tokenizer: str,
        max_length: int = 512,
        padding: str = "longest",
        truncation: bool = True,
        special_tokens: bool = True,
        pad_token: str | None = None,
        pad_to_multiple_of: int | None = None,
    ) -> None:
        """Load the file.

        Args:
            tokenizer: the path of `tokenizer.json`.
            max_length: in tokens, with the special ones.
            padding: `longest` of the request, or `max_length`, which makes every request one shape.
            truncation: cut longer texts; False refuses them.
            special_tokens: add those that the tokenizer puts around a text.
            pad_token: what fills up; the tokenizer's own when left out.
            pad_to_multiple_of: fill up further.
        """
        from tokenizers import Tokenizer as Native

        if padding not in PADDING:
            msg = f"padding is {padding!r}; known: {', '.join(PADDING)}"
            raise ValueError(msg)
        with open(tokenizer, encoding="utf-8") as stream:
            self.native = Native.from_str(stream.read())
        self.max_length, self.truncation, self.special_tokens = max_length, truncation, special_tokens
        own = self.native.padding or {}
        candidates = (pad_token,) if pad_token else (own.get("pad_token"), *PAD_TOKENS)
        token = next((item for item in candidates if item and self.native.token_to_id(item) is not None), None)
        if pad_token and token is None:
            msg = f"pad_token {pad_token!r} is not in the vocabulary"
            raise ValueError(msg)
        self.native.enable_padding(
            direction=own.get("direction", "right"),
            pad_id=self.native.token_to_id(token) if token else 0,
            pad_token=token or "",
            length=max_length if padding == "max_length" else None,
            pad_to_multiple_of=pad_to_multiple_of,
        )
        if truncation:
            self.native.enable_truncation(max_length)
        else:
            self.native.no_truncation()

    def __call__(self, text: NDArray[np.object_]) -> dict[str, NDArray[np.int64]]:
        """UTF-8 texts, one a row.

        Raises:
            ValueError: a row is no text, or longer than max_length where nothing is cut.
        """
        import numpy as np

        texts = [_decoded(number, item) for number, item in enumerate(text.ravel())]
        rows = self.native.encode_batch(texts, add_special_tokens=self.special_tokens)
        for number, row in enumerate(rows):
            if not self.truncation and sum(row.attention_mask) > self.max_length:
                msg = f"row {number} has {sum(row.attention_mask)} tokens, max_length is {self.max_length}"
                raise ValueError(msg)
        return {
            "input_ids": np.array([row.ids for row in rows], np.int64),
            "attention_mask": np.array([row.attention_mask for row in rows], np.int64),
            "token_type_ids": np.array([row.type_ids for row in rows], np.int64),
        }

    def samples(self, seed: int) -> dict[str, NDArray[np.object_]]:
        """Texts of several lengths and scripts, one of them empty and one too long."""
        import numpy as np

        order = np.random.default_rng(seed).permutation(len(TEXTS) - 1 if not self.truncation else len(TEXTS))
        kept = [text for text in TEXTS if self.truncation or not text.startswith("word word")]
        items = np.empty(len(order), dtype=object)
        items[:] = [kept[place].encode() for place in order]
        return {"text": items}


def _decoded(number: int, item: bytes) -> str:
    try:
        return item.decode()
    except UnicodeDecodeError as error:
        msg = f"row {number} is no text in UTF-8: {error.reason} at byte {error.start}"
        raise ValueError(msg) from None
