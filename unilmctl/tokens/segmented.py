"""RoFormer's WordPiece: its vocabulary holds Chinese words, so a segmenter says where they are (extra `zh`)."""

from collections.abc import Sequence
from importlib import import_module

from tokenizers import normalizers

from unilmctl.errors import ModelError
from unilmctl.tokens.engines import FastEngine
from unilmctl.tokens.memory import flat


class SegmentedEngine(FastEngine):
    """WordPiece over what jieba cuts without guessing new words.

    A word that the vocabulary lacks is cut at its blanks and around every CJK character, and into pieces after that.
    """

    def _open(self, definition: str) -> None:
        """`definition` normalises, and separates words at blanks."""
        super()._open(definition)
        try:
            self._cut = import_module("rjieba").cut
        except ImportError as error:
            raise ModelError(
                "the vocabulary of RoFormer needs rjieba, which is not installed", "pip install 'unilmctl[zh]'"
            ) from error
        self._words = set(self.vocabulary)
        self._characters = normalizers.BertNormalizer(
            clean_text=False, handle_chinese_chars=True, strip_accents=False, lowercase=False
        )
        self.encode_flat = lambda texts: flat(self.encode_whole(texts))

    def encode_whole(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of every text."""
        return super().encode_whole([" ".join(self._separated(text)) for text in texts])

    def _separated(self, text: str) -> list[str]:
        words: list[str] = []
        for word in self._cut(self._tokenizer.normalizer.normalize_str(text), False):
            words += [word] if word in self._words else self._characters.normalize_str(word).split()
        return words

    def encode_placed(self, texts: Sequence[str]) -> None:
        """Not known: what is encoded is the text after normalising and cutting."""

    def content(self) -> bytes:
        """The definition, and that jieba cuts before it."""
        return b"jieba\0" + super().content()
