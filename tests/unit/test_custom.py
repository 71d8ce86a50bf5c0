"""Rows that a recipe describes: the same as our own where those exist, and refused where they make no sense."""

import ast
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from unilmctl.errors import RecipeError
from unilmctl.objectives import Corruption, build
from unilmctl.objectives.custom import parse_row
from unilmctl.objectives.formula import LONGEST, read_formula
from unilmctl.rows import LANGUAGE_MODEL, Example, Frame, Row, leaks

FUZZED = settings(deadline=None, max_examples=150)
QUICK = settings(deadline=None, max_examples=40)
FRAME = Frame(pad=0, start=1, separator=2, mask=3, vocabulary=1000, separator_in="source")
PLAIN = Corruption(random=0, keep=0)

# ------------------------------------------------------------------------------------------------------------- formulas

NAMES = ("i", "n")


def value(text: str, **names: int) -> int:
    return int(read_formula(text, NAMES)({name: np.array([number]) for name, number in names.items()})[0])


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("2*i+1", 7),
        ("2*(i+1)", 8),
        ("n - 1 - i", 6),
        ("-i + n", 7),
        ("--i", 3),
        ("i//2", 1),
        ("-i//2", -2),
        ("n%4", 2),
        ("2-1-1", 0),
        ("n//5*5", 10),
        (" 12 ", 12),
    ],
)
def test_formulas(text: str, result: int):
    assert value(text, i=3, n=10) == result


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' ends too early"),
        ("2*", "'2*' ends too early"),
        ("2 2", "'2 2': '2' is one too many"),
        ("i)", "'i)': ')' is one too many"),
        ("(i", "'(i' lacks a ')'"),
        ("(i+1", "'(i+1' lacks a ')'"),
        ("*2", "'*2': '*' stands where a number or a name should"),
        ("2**i", "'2**i': '*' stands where a number or a name should"),
        ("i+x", "'i+x': there is no 'x' here; there are i, n"),
        ("i/2", "'i/2': '/' is no number, name or sign"),
        ("__import__('os')", "'__import__('os')': '_' is no number, name or sign"),
        ("i^2", "'i^2': '^' is no number, name or sign"),
        ("٣", "'٣': '٣' is no number, name or sign"),
        ("9999999999", "'9999999999' exceeds 1073741824"),
        ("i" * 81, f"a formula of 81 characters is too long (at most {LONGEST})"),
    ],
)
def test_what_is_no_formula(text: str, message: str):
    with pytest.raises(ValueError) as caught:
        read_formula(text, NAMES)
    assert str(caught.value) == message


def test_what_cannot_be_computed():
    for text, message in [("1//(i-3)", "'1//(i-3)' divides by zero"), ("1%(i-3)", "'1%(i-3)' divides by zero")]:
        with pytest.raises(ValueError) as caught:
            value(text, i=3, n=1)
        assert str(caught.value) == message
    with pytest.raises(ValueError, match="exceeds 1073741824"):
        value("99999*99999*i", i=3, n=1)


formulas = st.recursive(
    st.one_of(st.integers(0, 50).map(str), st.sampled_from(NAMES)),
    lambda inner: st.one_of(
        st.builds("{}{}{}".format, inner, st.sampled_from(["+", "-", "*", " // ", "%"]), inner),
        inner.map("({})".format),
        inner.map("-{}".format),
    ),
    max_leaves=8,
)


@FUZZED
@given(formulas, st.integers(0, 20), st.integers(1, 20))
def test_formulas_are_what_python_makes_of_them(text: str, i: int, n: int):
    if len(text) > LONGEST:
        return
    try:
        wanted = eval(compile(ast.parse(text, mode="eval"), "", "eval"), {"i": i, "n": n})
    except ZeroDivisionError:
        with pytest.raises(ValueError, match="divides by zero"):
            value(text, i=i, n=n)
        return
    try:
        assert value(text, i=i, n=n) == wanted
    except ValueError as error:
        assert "exceeds" in str(error)  # noqa: PT017 - allowed for large numbers only


@FUZZED
@given(st.text(alphabet="in x0129+-*/%() .", max_size=20))
def test_any_text_is_a_formula_or_refused(text: str):
    try:
        formula = read_formula(text, NAMES)
    except ValueError as error:
        assert str(error).startswith(f"'{text}'")  # noqa: PT017
        return
    try:
        formula({name: np.arange(1, 5) for name in NAMES})
    except ValueError as error:
        assert "divides" in str(error) or "exceeds" in str(error)  # noqa: PT017


# ----------------------------------------------------------------------------------------------------------------- rows

ROWS = {
    "pseudo": """
        parts:
          - {take: source, time: 0}
          - {take: target, time: 2*i+2}
          - {mask: target, time: 2*i+1, until: 2*i+2, predict: this}
    """,
    "causal": """
        parts:
          - {take: source, of: rest, time: 0}
          - {take: source, of: last, time: 0, predict: next}
          - {take: target, of: rest, time: i+1, predict: next}
    """,
    "seq2seq": """
        choose: {field: text, span: gram}
        parts:
          - {take: text, of: others, time: 0}
          - {corrupt: text, of: chosen, time: 0, predict: this}
    """,
    "left-to-right": """
        choose: {field: text, span: gram}
        parts:
          - {take: text, of: others, time: i}
          - {corrupt: text, of: chosen, time: i, predict: this}
    """,
    "right-to-left": """
        choose: {field: text, span: gram}
        parts:
          - {take: text, of: others, time: n-1-i}
          - {corrupt: text, of: chosen, time: n-1-i, predict: this}
    """,
    "partial": """
        choose: {field: text, span: block}
        parts:
          - {take: text, of: others, time: 0}
          - {mask: text, of: chosen, time: 0, predict: this}
          - {corrupt: text, of: chosen, time: 2*k+1, until: 2*k+2, predict: this}
          - {take: text, of: chosen, time: 2*k+2}
    """,
}
ROWS["bidirectional"] = ROWS["seq2seq"]


def described(name: str) -> dict[str, object]:
    found: dict[str, object] = yaml.safe_load(ROWS[name])
    return found


def columns(row: Row) -> list[tuple[int, ...]]:
    found = row.labels[LANGUAGE_MODEL]
    answers = dict(zip(found.slots.tolist(), found.targets.tolist(), strict=True))
    each = zip(row.positions, row.time, row.until, row.ids, row.segments, row.shows, strict=True)
    return sorted((*(int(value) for value in column), answers.get(slot, -1)) for slot, column in enumerate(each))


@QUICK
@given(st.sampled_from(sorted(set(ROWS) - {"seq2seq"})), st.integers(0, 9), st.integers(1, 9), st.integers(0, 9999))
def test_rows_of_our_own_in_a_few_lines(name: str, source: int, target: int, seed: int):
    example = Example(np.arange(10, 10 + source), np.arange(30, 30 + target))
    corruption = replace(PLAIN, target=0 if name in ("pseudo", "causal") else 0.3)
    if name not in ("pseudo", "causal"):
        example = Example(np.concatenate((example.source, example.target)), example.target[:0])
    custom = parse_row(described(name), corruption=corruption)
    made = custom(example, FRAME, np.random.default_rng(seed))
    wanted = build(name, corruption)(example, FRAME, np.random.default_rng(seed))
    assert columns(made) == columns(wanted)
    assert leaks(made) == []
    sizes = np.array([len(example.source)]), np.array([len(example.target)])
    if name != "partial":  # there the number of chosen tokens is drawn
        assert custom.lengths(*sizes, FRAME).tolist() == [len(made)]


def test_the_row_of_the_documentation_is_partial():
    page = (Path(__file__).parents[2] / "docs" / "masks.md").read_text("utf-8")
    (shown,) = yaml.safe_load(page.split("```yaml\n")[1].split("```")[0])["rows"]
    assert shown.pop("name") == "blocks"
    assert shown == described("partial") | {"choose": {"field": "text", "span": "block", "rate": 0.15}}


def test_what_is_chosen_in_one_field():
    given_example = Example(np.arange(10, 16), np.arange(30, 34))
    for field, ids in (("target", {30, 31, 32, 33, 2}), ("source", set(range(10, 16)))):
        described_row = {
            "choose": {"field": field, "rate": 0.4, "span": "token"},
            "parts": [
                {"take": "source", "of": "others", "time": 0},
                {"mask": "source", "of": "chosen", "time": 0, "predict": True},
                {"take": "target", "of": "others", "time": "i+1", "segment": 7},
                {"mask": "target", "of": "chosen", "time": "i+1", "predict": "this", "segment": 7},
            ],
        }
        row = parse_row(described_row)
        found = [row(given_example, FRAME, np.random.default_rng(seed)) for seed in range(40)]
        assert {int(t) for one in found for t in one.labels[LANGUAGE_MODEL].targets} == ids
        assert found[0].segments.tolist().count(7) == 5


def refused(text: str) -> str:
    with pytest.raises(RecipeError) as caught:
        parse_row(yaml.safe_load(text), "mine")
    assert caught.value.hint == "docs/masks.md shows how a row is described"
    assert caught.value.message.startswith("row 'mine': ")
    return caught.value.message.removeprefix("row 'mine': ")


def test_a_row_that_shows_its_own_answer_is_refused_with_the_part():
    assert refused("""
        parts:
          - {take: source, time: 0}
          - {take: target, time: 2*i}
          - {mask: target, time: 2*i+1, until: 2*i+2, predict: this}
    """) == (
        "part 3 (mask target): what it predicts at time 1 stands in part 2 (take target) from time 0 on; "
        "it must be written later than it is predicted"
    )
    assert refused("{parts: [{take: target, time: 0, predict: next}]}").startswith("part 1 (take target): what it")
    # What a draw keeps shows its answer to the other part: found whatever the draws are.
    kept = ROWS["partial"].replace("- {mask: text, of: chosen, time: 0,", "- {corrupt: text, of: chosen, time: 0,")
    assert refused(kept).startswith("part 3 (corrupt text): what it predicts at time 1 stands in part 2 (corrupt text)")


def test_a_time_that_goes_wrong_later_is_found_in_the_row():
    row = parse_row(
        yaml.safe_load("""
        parts:
          - {take: source, time: 0}
          - {take: target, time: (i+1)%20, predict: next}
    """)
    )
    long = Example(np.arange(10, 13), np.arange(30, 60))
    with pytest.raises(
        RecipeError, match=r"row 'row': part 2 \(take target\): what it predicts at time 19 stands in part 2"
    ):
        row(long, FRAME, np.random.default_rng(0))


TAKE = "{take: text, time: i, predict: next}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "'parts' must list at least one part"),
        ("{parts: []}", "'parts' must list at least one part"),
        ("{part: []}", "a row: there is no 'part'; did you mean 'parts'?"),
        ("{parts: [text]}", "part 1 must be a mapping like {take: text, time: 0}"),
        ("{parts: [{time: 0}]}", "part 1 needs one of take, mask, corrupt"),
        ("{parts: [{take: text, mask: text, time: 0}]}", "part 1 needs one of take, mask, corrupt"),
        ("{parts: [{take: text}]}", "part 1 (take text) needs a 'time'"),
        (
            "{parts: [{take: txt, time: 0}]}",
            "part 1 (take txt): 'take' is one of text, source, target, not 'txt'",
        ),
        (
            "{parts: [{take: text, time: 0, of: some}]}",
            "part 1 (take text): 'of' is one of all, chosen, others, last, rest, not 'some'",
        ),
        ("{parts: [{take: text, tme: 0}]}", "part 1 (take text): there is no 'tme'; did you mean 'time'?"),
        (
            "{parts: [{take: text, xyz: 0}]}",
            "part 1 (take text): there is no 'xyz'; there are take, of, time, until, segment, predict",
        ),
        (
            "{parts: [{take: text, time: k}]}",
            "part 1 (take text): 'time': 'k': there is no 'k' here; there are i, n, m",
        ),
        ("{parts: [{take: text, time: 0.5}]}", "part 1 (take text): 'time' is a formula like 2*i+1, not 0.5"),
        ("{parts: [{take: text, time: true}]}", "part 1 (take text): 'time' is a formula like 2*i+1, not True"),
        ("{parts: [{take: text, time: 0, until: }]}", "part 1 (take text): 'until' is a formula like 2*i+1, not None"),
        (
            "{parts: [{take: text, time: 0, segment: a}]}",
            "part 1 (take text): 'segment' is a number from 0 on, not 'a'",
        ),
        (
            "{parts: [{take: text, time: 0, predict: it}]}",
            "part 1 (take text): 'predict' is 'this' or 'next', not 'it'",
        ),
        ("{parts: [{take: text, time: 0}]}", "no part predicts anything: add 'predict: this' or 'predict: next'"),
        (
            "{parts: [{take: source, time: 0}, {take: text, time: 0}]}",
            "'text' is source and target in one: it does not go with 'source' or 'target'",
        ),
        (
            "{parts: [{mask: text, of: chosen, time: 0, predict: this}]}",
            "part 1 (mask text): 'of: chosen' needs a 'choose' beside 'parts'",
        ),
        (f"{{choose: 1, parts: [{TAKE}]}}", "'choose' must be a mapping like {field: text, rate: 0.15}"),
        (f"{{choose: {{}}, parts: [{TAKE}]}}", "'choose': 'field' is one of text, source, target, not None"),
        (
            f"{{choose: {{field: text, rate: 2}}, parts: [{TAKE}]}}",
            "'choose': 'rate' is a share between 0 and 1, not 2",
        ),
        (
            f"{{choose: {{field: text, span: word}}, parts: [{TAKE}]}}",
            "'choose': 'span' is one of token, gram, ngram, ngram-5, block, geometric, poisson, suffix, not 'word'",
        ),
        (
            f"{{choose: {{field: text, of: x}}, parts: [{TAKE}]}}",
            "'choose': there is no 'of'; there are field, rate, span",
        ),
        (
            "{parts: [{take: text, time: i-1, predict: next}]}",
            "part 1 (take text): written at -1, readable until 1073741824; 0 <= time <= until",
        ),
        (
            "{parts: [{take: text, time: 4, until: 3, predict: next}]}",
            "part 1 (take text): written at 4, readable until 3; 0 <= time <= until",
        ),
        (
            "{parts: [{mask: text, time: i, until: i, predict: this}]}",
            "at time 0 a token reads nothing, not even itself",
        ),
    ],
)
def test_what_is_no_row(text: str, message: str):
    assert refused(text) == message


words_of_a_row = st.sampled_from(
    [
        "text",
        "source",
        "target",
        "all",
        "chosen",
        "others",
        "last",
        "rest",
        "this",
        "next",
        "i",
        "2*i+1",
        "k",
        0,
        1,
        None,
    ]
)
maps = st.dictionaries(
    st.sampled_from(["take", "mask", "corrupt", "of", "time", "until", "segment", "predict", "x"]), words_of_a_row
)


@FUZZED
@given(
    st.fixed_dictionaries(
        {"parts": st.lists(maps, max_size=3)},
        optional={
            "choose": st.one_of(st.none(), st.just({"field": "text"}), st.just({"field": "target", "rate": 0.5}))
        },
    ),
    st.integers(0, 999),
)
def test_any_mapping_is_a_sound_row_or_refused(given_row: dict[str, object], seed: int):
    try:
        row = parse_row(given_row)(Example(np.arange(10, 19), np.arange(30, 35)), FRAME, np.random.default_rng(seed))
    except RecipeError:
        return
    assert leaks(row) == []
