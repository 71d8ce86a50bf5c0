"""WordPiece tokens to text."""

from collections.abc import Sequence

PREFIX = "##"

# Scripts and signs that are written without blanks: kana, ideographs, their punctuation, full-width forms.
_UNSPACED = ((0x3000, 0x30FF), (0x31F0, 0x31FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF),
             (0xFE30, 0xFE4F), (0xFF00, 0xFFEF), (0x20000, 0x323AF))  # fmt: skip
_SHARED = frozenset("“”‘’—…·")  # Chinese and European punctuation alike: unspaced beside a CJK character


def join_words(tokens: Sequence[str]) -> str:
    """Text of WordPiece `tokens`: `##x` is glued to what stands before it, other words are joined by one blank.

    No blank stands between two CJK characters. A leading `##x` has nothing to be glued to and keeps its hashes.
    """
    parts: list[str] = []
    for token in tokens:
        if not parts:
            parts.append(token)
        elif token.startswith(PREFIX) and len(token) > len(PREFIX):
            parts.append(token[len(PREFIX) :])
        elif token:
            parts.append(token if _touch(parts[-1], token) else " " + token)
    return "".join(parts)


def _touch(left: str, right: str) -> bool:
    """Whether two neighbouring words are written without a blank."""
    before, after = left[-1:], right[:1]
    if _unspaced(before):
        return _unspaced(after) or after in _SHARED
    return before in _SHARED and _unspaced(after)


def _unspaced(character: str) -> bool:
    return bool(character) and any(first <= ord(character) <= last for first, last in _UNSPACED)
