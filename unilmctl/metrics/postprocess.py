"""The papers' text preparation: put the tokens of a BERT vocabulary back into Penn Treebank form, line by line.

UniLM's scores of CNN/DM, Gigaword, XSum and SQuAD question generation are computed on texts rewritten this way. One
pass reads the tokens and writes new ones; each rule below looks at where the pass stands and says how many tokens it
took.

Kept although they are defects, because the published figures contain them:
- after `U . N .` is written as `U.N.`, its last full stop is read again, so `U.N. .` comes out (the token counts that
  cut and drop CNN/DM sentences see it; ROUGE itself does not);
- a run of initials is never joined beyond the second one; instead a token before a later initial is glued to the
  abbreviation and written again (`U . S . President J .` gives `U.S.PresidentJ . President J .`), and ROUGE sees it;
- the 0.7 rule counts the words of dropped sentences as already said.
Not kept, because it never has an effect: the filter on an F1 above 1 between sentences.
"""

import string
from collections.abc import Callable, Sequence

PENN = {"(": "-LRB-", ")": "-RRB-", "[": "-LSB-", "]": "-RSB-", "{": "-LCB-", "}": "-RCB-"}
PENN_LOWER = {mark: name.lower() for mark, name in PENN.items()}
ESCAPED = {**PENN_LOWER, "[UNK]": "UNK", "&": "&amp;", "<": "&lt;", ">": "&gt;"}


class _Pass:
    """One reading of a line: the tokens, the place in them, what is written, and which quotes are open."""

    def __init__(self, text: str, names: dict[str, str]) -> None:
        self.tokens = text.split()
        self.names = names
        self.place = 0
        self.written: list[str] = []
        self.open: set[str] = set()
        self.after_hyphen = False
        self.hyphen = False

    def ahead(self, distance: int) -> str:
        """The token `distance` places on, or "" past the end."""
        place = self.place + distance
        return self.tokens[place] if place < len(self.tokens) else ""

    @property
    def token(self) -> str:
        return self.tokens[self.place]

    @property
    def last(self) -> str:
        return self.written[-1] if self.written else ""

    def write(self, token: str, taken: int = 1) -> int:
        self.written.append(token)
        return taken

    def glue(self, text: str, taken: int = 1) -> int:
        self.written[-1] += text
        return taken


Rule = Callable[[_Pass], int]


def _named(line: _Pass) -> int:
    return line.write(line.names[line.token]) if line.token in line.names else 0


def _quote(line: _Pass, mark: str, opening: str, closing: str) -> int:
    if line.token != mark:
        return 0
    line.open ^= {mark}
    return line.write(opening if mark in line.open else closing)


def _double_quote(line: _Pass) -> int:
    return _quote(line, '"', "``", "''")


def _single_quote(line: _Pass) -> int:
    return _quote(line, "'", "`", "'")


def _negation(line: _Pass) -> int:
    """`don ' t` becomes `do n't`."""
    if line.token != "'" or line.ahead(1) != "t" or not line.last.endswith("n"):
        return 0
    line.written[-1] = line.last[:-1]
    return line.write("n't", 2)


def _clitic(line: _Pass) -> int:
    """`he ' s` becomes `he 's`."""
    if line.token != "'" or line.ahead(1) not in ("s", "d", "ll"):
        return 0
    return line.write("'" + line.ahead(1), 2)


def _ellipsis(line: _Pass) -> int:
    return line.write("...", 3) if line.token == line.ahead(1) == line.ahead(2) == "." else 0


def _digits(word: str) -> bool:
    return bool(word) and all(character.isdigit() or character == "," for character in word)


def _thousands(line: _Pass) -> int:
    """`3 , 000` becomes `3,000`."""
    if line.token != "," or not _digits(line.last) or not _digits(line.ahead(1)):
        return 0
    return line.glue("," + line.ahead(1), 2)


def _decimals(line: _Pass) -> int:
    """`3 . 03` becomes `3.03`."""
    if line.token != "." or not line.last.isdigit() or not line.ahead(1).isdigit():
        return 0
    return line.glue("." + line.ahead(1), 2)


def _capital(word: str) -> bool:
    return len(word) == 1 and word.isupper()


def _initials(line: _Pass) -> int:
    """`U . N .` becomes `U.N. .` (the defects of the module's docstring)."""
    if line.token != "." or line.ahead(2) != "." or not _capital(line.last) or not _capital(line.ahead(1)):
        return 0
    end = 3
    while _capital(line.ahead(end + 1)) and line.ahead(end + 2) == ".":
        end += 2
    return line.glue("".join(line.tokens[line.place : line.place + end]), 2)


def _dash(line: _Pass) -> int:
    """`- -` becomes `--`; a hyphen between two words is glued to the first, and the second to it."""
    if line.token != "-":
        return 0
    following = line.ahead(1)
    if following == "-":
        return line.write("--", 2)
    inside = line.place > 0 and following != ""
    if not inside or line.last in string.punctuation or following[0] in string.punctuation:
        return line.write("-")
    line.hyphen = True
    return line.glue("-")


def _second_half(line: _Pass) -> int:
    return line.glue(line.token) if line.after_hyphen and line.token[0] not in string.punctuation else 0


def _as_it_is(line: _Pass) -> int:
    return line.write(line.token)


_CONTRACTIONS: list[Rule] = [_negation, _clitic]
_NUMBERS: list[Rule] = [_ellipsis, _thousands, _decimals, _initials]
ALL_RULES: Sequence[Rule] = [
    _named,
    _double_quote,
    *_CONTRACTIONS,
    _single_quote,
    *_NUMBERS,
    _dash,
    _second_half,
    _as_it_is,
]
PLAIN_RULES: Sequence[Rule] = [*_CONTRACTIONS, *_NUMBERS, _as_it_is]


def rejoin(text: str, *, names: dict[str, str], rules: Sequence[Rule] = ALL_RULES) -> str:
    """Rewrite one line of tokens; `names` are the tokens that are replaced as a whole."""
    line = _Pass(text, names)
    while line.place < len(line.tokens):
        line.after_hyphen, line.hyphen = line.hyphen, False
        line.place += next(filter(None, (rule(line) for rule in rules)))
    return " ".join(line.written)


# --- whole outputs --------------------------------------------------------------------------------------------------

_SENTENCE = "[X_SEP]"
_SHORTEST = 5  # tokens of a sentence that counts
_SAID = 0.7  # the share of a sentence's words that may have been said before


def cnndm(text: str) -> str:
    """An s2s-ft summary of several sentences: rewritten, filtered, cut to 160 tokens, one sentence per line."""
    return _summary(text, spread="()[]", tokens=160)


def cnndm_v1(text: str) -> str:
    """The same for unilm v1: 70 tokens, and brackets inside words stay."""
    return _summary(text, spread="", tokens=70)


def _summary(text: str, *, spread: str, tokens: int) -> str:
    sentences = [_spread(rejoin(part, names=PENN), spread) for part in text.replace("\n", _SENTENCE).split(_SENTENCE)]
    long_enough = [sentence.split() for sentence in sentences if len(sentence.split()) >= _SHORTEST]
    return "\n".join(" ".join(sentence) for sentence in _cut(_new(long_enough), tokens))


def _spread(text: str, marks: str) -> str:
    """Brackets that are left inside words become tokens of their own."""
    for mark in marks:
        text = text.replace(mark, f" {PENN[mark]} ")
    return text


def _new(sentences: list[list[str]]) -> list[list[str]]:
    kept, said = [], set[str]()
    for sentence in sentences:
        vocabulary = {word.lower() for word in sentence}
        if len(vocabulary & said) / len(vocabulary) <= _SAID:
            kept.append(sentence)
        said |= vocabulary
    return kept


def _cut(sentences: list[list[str]], tokens: int) -> list[list[str]]:
    kept = []
    for sentence in sentences:
        if tokens <= 0:
            break
        kept.append(sentence[:tokens])
        tokens -= len(kept[-1])
    return kept


def cnndm_reference(text: str) -> str:
    """Reference sentences, one per line."""
    return text.strip().replace(" <S_SEP> ", "\n")


def gigaword(text: str) -> str:
    """A headline: rewritten, and every 1 as the # that stands for digits in the data."""
    return rejoin(text, names={**ESCAPED, "<unk>": "UNK"}).replace("1", "#")


def xsum(text: str) -> str:
    """One sentence: contractions and numbers only, then round brackets."""
    return " ".join(_spread(rejoin(text, names={}, rules=PLAIN_RULES), "()").split())


def squad_question(text: str) -> str:
    """A question: rewritten and lower-cased."""
    return rejoin(text, names=ESCAPED).lower()
