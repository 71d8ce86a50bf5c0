"""WordPiece tokens to text; which tokens of any kind continue a word."""

from collections.abc import Sequence

PREFIX = "##"
BLANK = "\u2581"  # ▁, how a SentencePiece vocabulary writes a blank

# Byte-level BPE writes the printable bytes of Latin-1 as themselves and the others, in order, from U+0100 on.
_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_BYTES = {chr(byte): byte for byte in _PRINTABLE} | {
    chr(0x100 + place): byte for place, byte in enumerate(sorted({*range(256)} - {*_PRINTABLE}))
}
_BYTE_BLANKS = frozenset(written for written, byte in _BYTES.items() if byte in b" \t\n\r")
_IDEOGRAPHS = range(0xE3, 0xEA)  # first bytes of U+3000 to U+9FFF

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


def continues_word(token: str, kind: str) -> bool:
    """Whether a vocabulary's `token` continues a word that another token began; see `Tokenizer.continues`."""
    if kind == "wordpiece":
        return len(token) > len(PREFIX) and token.startswith(PREFIX) and not _unspaced(token[len(PREFIX)])
    if kind == "sentencepiece":
        return bool(token) and token[0] != BLANK and not _unspaced(token[0])
    return bool(token) and token[0] not in _BYTE_BLANKS and not _leads_unspaced(token)


def _leads_unspaced(token: str) -> bool:
    """Whether a byte-level token begins with an unspaced character, or with the first byte of an ideograph."""
    spelt = bytes(_BYTES[character] for character in token if character in _BYTES)
    return _unspaced(spelt.decode(errors="ignore")[:1]) or (bool(spelt) and spelt[0] in _IDEOGRAPHS)


def _touch(left: str, right: str) -> bool:
    """Whether two neighbouring words are written without a blank."""
    before, after = left[-1:], right[:1]
    if _unspaced(before):
        return _unspaced(after) or after in _SHARED
    return before in _SHARED and _unspaced(after)


def _unspaced(character: str) -> bool:
    return bool(character) and any(first <= ord(character) <= last for first, last in _UNSPACED)
