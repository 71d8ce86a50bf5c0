"""The generator, its options, the scorer, and streams of records."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_writer import WORDS, sentences, tiny_encoder, tiny_generator, tiny_tokenizer

from unilmctl.data.parsing import Record
from unilmctl.data.reading import BadLine
from unilmctl.errors import DataError, ModelError, UsageError
from unilmctl.generation import (
    Answer,
    GenerateOptions,
    Generator,
    Hypothesis,
    Scorer,
    Shard,
    Tally,
    Work,
    generate_stream,
    read_records,
    windows,
)
from unilmctl.generation import stream as stream_module
from unilmctl.generation.work import Alone, Found
from unilmctl.search import Task
from unilmctl.weights import ModelCard

SEARCHES: list[dict[str, Any]] = [
    {"search": "beam", "nbest": 3},
    {"search": "greedy"},
    {"search": "sample", "nbest": 2, "top_k": 8},
    {"search": "s2s-ft", "nbest": 2, "max_length": 6},
    {"search": "beam", "length_penalty": 0.8, "no_repeat_ngram": 2, "min_length": 3},
    {"search": "beam", "length_normalization": "average", "beam": 2},
    {"search": "beam", "beam": 4, "nbest": 4, "beam_groups": 2, "diversity": 0.7},
    {"search": "sample", "min_p": 0.1, "typical_p": 0.9},
    {"search": "contrastive", "top_k": 3, "length_penalty": 0.6},
]


def close(left: list[list[Hypothesis]], right: list[list[Hypothesis]]) -> None:
    assert [[h.ids for h in hs] for hs in left] == [[h.ids for h in hs] for hs in right]
    scores = [[h.score for hs in side for h in hs] for side in (left, right)]
    assert scores[0] == pytest.approx(scores[1], abs=2e-5)


@pytest.mark.parametrize("options", SEARCHES, ids=str)
@pytest.mark.parametrize("objective", ["pseudo", "masked", "causal", "next-token"])
def test_batch_order_and_padding_change_nothing(tmp_path: Path, options: dict[str, Any], objective: str) -> None:
    sources = sentences(9)
    generator = tiny_generator(tmp_path, objective=objective, **options)
    together = generator.generate(sources)
    small = tiny_generator(tmp_path, objective=objective, **options, batch_tokens=60).generate(sources)
    alone = [generator.generate([source], keys=[key])[0] for key, source in enumerate(sources)]
    backwards = generator.generate(sources[::-1], keys=list(range(9))[::-1])[::-1]
    for other in (small, alone, backwards):
        close(together, other)


@pytest.mark.parametrize("options", [o for o in SEARCHES if o["search"] != "s2s-ft"], ids=str)
@pytest.mark.parametrize("objective", ["pseudo", "masked", "causal", "next-token"])
def test_the_score_of_an_output_is_the_score_that_came_with_it(
    tmp_path: Path, options: dict[str, Any], objective: str
) -> None:
    sources = sentences(6, longest=30)
    generator = tiny_generator(tmp_path, objective=objective, **options)
    card = ModelCard(objective=objective)
    scorer = Scorer(tiny_encoder(), card, generator.tokenizer, scoring=generator.scoring, max_length=10)
    found = generator.generate(sources)
    pairs = [(source, h.ids) for source, hs in zip(sources, found, strict=True) for h in hs]
    expected = [h for hs in found for h in hs]
    for scored, hypothesis in zip(scorer.score(pairs), expected, strict=True):
        assert scored.score == pytest.approx(hypothesis.score, abs=1e-5)
        assert scored.token_scores == pytest.approx(hypothesis.token_scores, abs=1e-5)


def test_the_beam_is_as_good_as_greedy_and_s2s_ft_nearly_always_agrees(tmp_path: Path) -> None:
    sources = sentences(40)
    found = {
        name: tiny_generator(tmp_path, search=name, beam=4).generate(sources) for name in ("beam", "greedy", "s2s-ft")
    }
    pairs = [
        (mine, theirs)
        for (mine, *_), (theirs, *_) in zip(found["beam"], found["s2s-ft"], strict=True)
        if len(theirs.token_scores) > len(theirs.ids) and not {0, 2, 4} & set(theirs.ids)
    ]
    assert len(pairs) >= 20
    assert sum(mine.ids == theirs.ids for mine, theirs in pairs) >= 0.9 * len(pairs)
    assert sum(a[0].score >= b[0].score - 1e-5 for a, b in zip(found["beam"], found["greedy"], strict=True)) >= 36


def test_control_tokens_are_never_written(tmp_path: Path) -> None:
    encoder = tiny_encoder()
    encoder.head.bias.data[[0, 2, 4]] = 20.0
    tokenizer = tiny_tokenizer(tmp_path)
    for search in ("beam", "greedy", "sample"):
        options = GenerateOptions(search=search, max_length=8)
        found = Generator(encoder, ModelCard(), tokenizer, options).generate(sentences(5))
        assert not {0, 2, 3, 4} & {token for hs in found for h in hs for token in h.ids}


def test_forbidden_and_forced_tokens(tmp_path: Path) -> None:
    sources = sentences(4)
    plain = tiny_generator(tmp_path).generate(sources)
    used = next(token for hs in plain for token in hs[0].ids)
    without = tiny_generator(tmp_path, forbid=(WORDS[used],)).generate(sources)
    assert all(used not in h.ids for hs in without for h in hs)
    forced = tiny_generator(tmp_path).generate(sources, prefixes=[[5, 6], [], [7], [8, 8]])
    assert [hs[0].ids[: len(p)] for hs, p in zip(forced, ([5, 6], [], [7], [8, 8]), strict=True)] == [
        [5, 6],
        [],
        [7],
        [8, 8],
    ]
    assert forced[1] == plain[1]


def test_bfloat16_works_and_nearly_agrees(tmp_path: Path) -> None:
    sources = sentences(6)
    exact, rough = (
        tiny_generator(tmp_path, dtype=name, search="greedy").generate(sources) for name in ("auto", "bfloat16")
    )
    assert sum(a[0].ids[:1] == b[0].ids[:1] for a, b in zip(exact, rough, strict=True)) >= 4


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"search": "bean"}, "search cannot be 'bean'"),
        ({"dtype": "int4"}, "dtype cannot be 'int4'"),
        ({"beam": 0}, "beam is 0; it must be at least 1"),
        ({"beem": 3}, "'beem' is no decoding option"),
        ({"beam": "5"}, "beam cannot be '5'"),
        ({"beam": True}, "beam cannot be True"),
        ({"forbid": "a"}, "forbid cannot be 'a'"),
        ({"nbest": 6}, "a beam of 5 cannot give 6 outputs"),
        ({"search": "greedy", "nbest": 2}, "greedy search has one output, not 2"),
        ({"search": "contrastive", "nbest": 2}, "contrastive search has one output, not 2"),
        ({"coverage_penalty": -1}, "coverage_penalty is -1.0; it must be at least 0"),
        ({"attention": "yes"}, "attention cannot be 'yes'"),
        ({"beam": None}, "beam cannot be None"),
        ({"alpha": 1.2}, "alpha is 1.2; it must be at least 0 and at most 1"),
        ({"min_length": 8, "max_length": 8}, "min_length 8 leaves no room below max_length 8"),
        ({"max_length": 0}, "max_length is 0; it must be at least 1"),
        ({"temperature": 0}, "temperature is 0.0; it must be above 0"),
        ({"top_p": 0.0}, "top_p is 0.0; it must be above 0 and at most 1"),
        ({"top_k": 0}, "top_k is 0; it must be at least 1"),
        ({"min_p": 0}, "min_p is 0.0; it must be above 0 and at most 1"),
        ({"typical_p": 1.5}, "typical_p is 1.5; it must be above 0 and at most 1"),
        ({"beam_groups": 0}, "beam_groups is 0; it must be at least 1"),
        ({"beam_groups": 2, "diversity": 1}, "a beam of 5 cannot be 2 groups of one size"),
        ({"beam_groups": 5}, "5 groups without diversity would all write the same"),
        ({"diversity": 1}, "diversity is between groups, and there is one"),
        ({"diversity": -1}, "diversity is -1.0; it must be at least 0"),
        ({"repetition_penalty": 0}, "repetition_penalty is 0.0; it must be above 0"),
        ({"repetition_penalty": 1.2, "search": "s2s-ft"}, "repetition_penalty has no meaning for s2s-ft search"),
        ({"workers": 0}, "workers is 0; it must be at least 1"),
        ({"workers": "2"}, "workers cannot be '2'"),
    ],
)
def test_options_that_cannot_be_meant(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        GenerateOptions().updated(given)
    assert caught.value.message == message


def test_a_mistyped_option_is_told_its_name() -> None:
    with pytest.raises(UsageError) as caught:
        GenerateOptions().updated({"lenght_penalty": 1})
    assert caught.value.hint == "did you mean 'length_penalty'?"
    assert GenerateOptions().updated({"forbid": ["x"], "length_penalty": 1}).forbid == ("x",)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"forbid": ("zebra",)}, UsageError, "forbid: the vocabulary has no token 'zebra'"),
        ({"no_repeat_ignore": ("zebra",)}, UsageError, "no_repeat_ignore: the vocabulary has no token 'zebra'"),
        ({"forbid": ("[SEP]",)}, UsageError, "the token that ends an output cannot be forbidden"),
        ({"max_length": 47}, UsageError, "max_length 47 leaves no room for a source: the model has 48 positions"),
        ({"search": "s2s-ft", "beam": 999}, UsageError, "a beam of 999 is larger than the vocabulary (27)"),
        ({"search": "contrastive", "top_k": 99}, UsageError, "top_k 99 is larger than the vocabulary (27)"),
        ({"objective": "permuted"}, ModelError, "a model trained with 'permuted' is not known to write"),
    ],
)
def test_options_that_do_not_fit_the_model(
    tmp_path: Path, options: dict[str, Any], error: type[UsageError], message: str
) -> None:
    with pytest.raises(error) as caught:
        tiny_generator(tmp_path, **options)
    assert caught.value.message == message


def test_a_prefix_must_leave_room_and_s2s_ft_knows_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a forced beginning of 10 tokens leaves no room below max_length 10"):
        tiny_generator(tmp_path).generate([[5]], prefixes=[[5] * 10])
    with pytest.raises(UsageError, match="s2s-ft knows no forced beginnings"):
        tiny_generator(tmp_path, search="s2s-ft").generate([[5]], prefixes=[[5]])


def test_lengths_come_from_options_then_card_then_the_positions(tmp_path: Path) -> None:
    encoder, tokenizer = tiny_encoder(), tiny_tokenizer(tmp_path)

    def limits(card: ModelCard, **options: Any) -> tuple[int, int]:
        generator = Generator(encoder, card, tokenizer, GenerateOptions(**options))
        return generator.frame.max_source, generator.frame.max_target

    assert limits(ModelCard()) == (24, 24)
    assert limits(ModelCard(max_source=20, max_target=12)) == (20, 12)
    assert limits(ModelCard(max_source=40, max_target=12), max_length=30) == (18, 30)
    generator = Generator(encoder, ModelCard(objective="causal"), tokenizer, GenerateOptions())
    assert generator.longest_source == 23


@pytest.mark.parametrize("objective", ["pseudo", "causal"])
def test_the_end_that_training_cut_off_is_the_end_that_decoding_cuts_off(tmp_path: Path, objective: str) -> None:
    """A model trained on the ends of long sources reads their ends: the beginning may be anything."""
    encoder, tokenizer = tiny_encoder(), tiny_tokenizer(tmp_path)
    options = GenerateOptions(max_length=10, beam=3)
    end, *others = (sentences(1, seed=seed, longest=40)[0] * 9 for seed in (5, 6, 7))
    for truncate, whole in (("head", [other + end for other in others]), ("tail", [end + other for other in others])):
        card = ModelCard(objective=objective, max_source=12, truncate=truncate)  # type: ignore[arg-type]
        found = Generator(encoder, card, tokenizer, options).generate(whole)
        close(found[:1], found[1:])
        scorer = Scorer(encoder, card, tokenizer, max_length=10)
        assert scorer.score([(whole[0], found[0][0].ids)])[0].score == pytest.approx(found[0][0].score, abs=1e-5)


def test_where_the_separator_stands_is_read_from_the_card(tmp_path: Path) -> None:
    """It reaches rows and steps alike: both variants score what they wrote, and they are not the same."""
    encoder, tokenizer, source = tiny_encoder(), tiny_tokenizer(tmp_path), sentences(1, seed=2)[0]
    scores = []
    for place in ("target", "source"):
        card = ModelCard(objective="causal", separator_in=place)  # type: ignore[arg-type]
        best = Generator(encoder, card, tokenizer, GenerateOptions(max_length=10)).generate([source])[0][0]
        scored = Scorer(encoder, card, tokenizer, max_length=10).score([(source, best.ids)])[0]
        assert scored.score == pytest.approx(best.score, abs=1e-5)
        scores.append(best.score)
    assert scores[0] != pytest.approx(scores[1], abs=1e-4)


def test_a_target_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    scorer = Scorer(tiny_encoder(), ModelCard(), tiny_tokenizer(tmp_path))
    with pytest.raises(DataError, match="source and target take 53 positions, the model has 48"):
        scorer.score([([5], [6] * 49)])


def record(text: str | list[str], **wishes: Any) -> Record:
    return Record(text, None, [], None, "x:1", **wishes)


def answers(generator: Generator, records: list[Any], tally: Tally | None = None, **options: Any) -> list[Answer]:
    groups = generate_stream(generator, iter(records), tally or Tally(), **options)
    return [answer for group in groups for answer in group]


@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pauses=st.sets(st.integers(0, 11)), budget=st.sampled_from([1, 100, 10_000]))
def test_a_stream_is_answered_in_order_whatever_its_pauses(tmp_path: Path, pauses: set[int], budget: int) -> None:
    generator = tiny_generator(tmp_path, batch_tokens=budget, search="greedy")
    texts = [" ".join(WORDS[i] for i in ids) for ids in sentences(12, seed=4)]
    texts[3] = ""
    records: list[Any] = []
    for place, text in enumerate(texts):
        records += [None, record(text)] if place in pauses else [record(text)]
    tally = Tally()
    found = answers(generator, records, tally)
    assert [answer.record.source for answer in found if isinstance(answer.record, Record)] == texts
    encoded = generator.tokenizer.encode_batch(texts)
    close([answer.hypotheses for answer in found], [generator.generate([ids])[0] if ids else [] for ids in encoded])
    assert tally == Tally(records=12)


def test_samples_of_a_stream_do_not_depend_on_its_pauses(tmp_path: Path) -> None:
    generator = tiny_generator(tmp_path, search="sample")
    records = [record("a b"), record("a b"), record("c")]
    plain = answers(generator, records)
    paused = answers(generator, [records[0], None, records[1], None, records[2]])
    assert [a.hypotheses[0].ids for a in plain] == [a.hypotheses[0].ids for a in paused]


def test_a_pause_answers_what_has_arrived(tmp_path: Path) -> None:
    seen: list[str] = []

    def arriving() -> Iterator[Record | None]:
        for text in ("a b", "c"):
            seen.append(text)
            yield record(text)
            yield None

    groups = generate_stream(tiny_generator(tmp_path), arriving(), Tally())
    assert len(next(groups)) == 1
    assert seen == ["a b"]


def test_bad_lines_cuts_and_empty_lines(tmp_path: Path) -> None:
    tally = Tally()
    records = [
        record("a " * 60),
        BadLine("x:2", "x:2: broken", None),
        BadLine("x:3", "x:3: broken", record("a")),
        record("  "),
        record([]),
        record(["a", "zebra"]),
    ]
    found = answers(tiny_generator(tmp_path), records, tally)
    assert [bool(answer.hypotheses) for answer in found] == [True, False, True, False, True, True]
    assert tally == Tally(records=6, cut=1, bad=2)


def test_a_record_says_how_its_output_begins(tmp_path: Path) -> None:
    generator = tiny_generator(tmp_path)
    records = [record("a b"), record("a b", prefix="d e"), record("a b", prefix=["f"]), record("a b", prefix="")]
    own, both = answers(generator, records), answers(generator, records, prefix="c")
    plain = generator.generate([generator.tokenizer.encode("a b")])[0]
    close([answer.hypotheses for answer in [own[0], own[3], both[3]]], [plain] * 3)
    ids = [[answer.hypotheses[0].ids for answer in found] for found in (own, both)]
    assert [found[1][:2] for found in ids] == [generator.tokenizer.encode("d e")] * 2
    assert [found[2][:1] for found in ids] == [generator.tokenizer.encode("f")] * 2
    assert ids[1][0][:1] == generator.tokenizer.encode("c")


def test_a_beginning_that_leaves_no_room_names_its_line(tmp_path: Path) -> None:
    generator = tiny_generator(tmp_path)
    records = [record("a"), record("b", prefix=" ".join("a" * 10)), record("c", prefix=" ".join("a" * 9))]
    groups = generate_stream(generator, records, Tally())
    assert len(next(groups)) == 1
    with pytest.raises(DataError) as caught:
        next(groups)
    assert caught.value.message == "x:1: a forced beginning of 10 tokens leaves no room below max_length 10"
    tally = Tally()
    found = answers(generator, records, tally, forgiving=True)
    assert [bool(answer.hypotheses) for answer in found] == [True, False, True]
    assert tally == Tally(records=3, bad=1)


def test_wishes_travel_with_their_record(tmp_path: Path) -> None:
    """Whoever decodes gets them as token ids, with the record's number in the whole input."""
    seen: list[Work] = []

    def decode(work: list[Work]) -> Iterator[Found]:
        seen.extend(work)
        yield [(one.task.key, []) for one in work]

    generator = tiny_generator(tmp_path)
    records = [record("a"), record("b", phrases=["a b", "c"], prefix="d"), record("c"), record("d")]
    answers(generator, records, desk=Alone(decode), shard=Shard(1, 2), prefix="e")
    encode = generator.tokenizer.encode
    assert seen == [
        Work(Task(1, encode("d"), [[encode("a b")], [encode("c")]]), encode("b")),
        Work(Task(3, encode("e"), []), encode("d")),
    ]


def test_an_error_in_the_input_comes_after_the_answers_before_it(tmp_path: Path) -> None:
    def failing() -> Iterator[Record]:
        yield record("a")
        raise DataError("x:2: broken")

    groups = generate_stream(tiny_generator(tmp_path), failing(), Tally())
    assert len(next(groups)) == 1
    with pytest.raises(DataError, match="x:2: broken"):
        next(groups)


def test_windows_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "WINDOW", 3)
    monkeypatch.setattr(stream_module, "WINDOW_CHARACTERS", 10)
    texts = ["aa", "bb", "cc", "d" * 30, "e", None, None, "f"]
    found = [
        [r.source for r in window if isinstance(r, Record)]
        for window in windows(None if text is None else record(text) for text in texts)
    ]
    assert found == [["aa", "bb", "cc"], ["d" * 30], ["e"], ["f"]]


def test_answers_leave_before_the_whole_window_is_done(tmp_path: Path) -> None:
    generator = tiny_generator(tmp_path, batch_tokens=1)
    groups = list(generate_stream(generator, iter([record("a b c"), record("a b"), record("a")]), Tally()))
    assert [len(group) for group in groups] == [1, 1, 1]


@pytest.mark.parametrize("packed", [False, True])
def test_records_of_a_file(tmp_path: Path, packed: bool) -> None:
    import gzip

    content = b'\xef\xbb\xbf{"src": "a b", "id": 7}\n\n{"src": ["a", "b"]}'
    file = tmp_path / ("x.in.gz" if packed else "x.in")
    file.write_bytes(gzip.compress(content) if packed else content)
    found = list(read_records(str(file)))
    assert [r.source for r in found if isinstance(r, Record)] == ["a b", "", ["a", "b"]]
    assert found[0] is not None
    assert isinstance(found[0], Record)
    assert found[0].id == 7
    assert isinstance(found[2], Record)
    assert found[2].where.endswith(":3")


def test_formats_and_bad_lines_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "lines"
    file.write_bytes(b"\n{not json}\nplain\xff\n")
    with pytest.raises(DataError, match="lines:2: not valid JSON"):
        list(read_records(str(file)))
    assert list(read_records(str(file), format="text", on_bad_line="skip"))[2:] == [
        BadLine(f"{file}:3", f"{file}:3: not UTF-8 (byte 0xff at column 6)", None)
    ]
    mended = list(read_records(str(file), format="text", on_bad_line="replace"))[2]
    assert isinstance(mended, BadLine)
    assert mended.replacement is not None
    assert mended.replacement.source == "plain\ufffd"
    assert isinstance(list(read_records(str(file), on_bad_line="replace"))[1], BadLine)
    table = tmp_path / "x.tsv"
    table.write_text("a b\tc\n")
    (row,) = read_records(str(table))
    assert isinstance(row, Record)
    assert (row.source, row.target) == ("a b", "c")
    with pytest.raises(DataError, match="no such file"):
        list(read_records(str(tmp_path / "absent")))
    broken = tmp_path / "x.gz"
    broken.write_bytes(b"\x1f\x8bnonsense")
    with pytest.raises(DataError, match="gzip data is broken"):
        list(read_records(str(broken)))


def test_the_generator_leaves_no_gradients_and_evaluates(tmp_path: Path) -> None:
    encoder = tiny_encoder().train()
    generator = Generator(encoder, ModelCard(), tiny_tokenizer(tmp_path), replace(GenerateOptions(), max_length=6))
    generator.generate([[5, 6]])
    assert not encoder.training
    assert all(parameter.grad is None for parameter in encoder.parameters())
    hidden = encoder.embeddings(torch.tensor([[5]]), torch.tensor([[0]]), torch.tensor([[0]]))
    assert hidden.requires_grad
