"""The parts of the training benchmark that need no peer: examples, goals, rows, and that the twin trains the same."""

import numpy as np
import torch
from beside import missed
from tiny_training import feed_of, tiny_encoder
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from train_bench import goals, gpu, ours, twin
from train_bench.work import LENGTHS, PAD, Engine

from unilmctl.rows import LANGUAGE_MODEL
from unilmctl.training import smoothed_loss


def test_the_table_of_goals_is_complete() -> None:
    asked = {
        ("E2E", "float32"): (3.0, 1.5, 0.7),
        ("E2E", "bfloat16"): (15.0, 1.5, 0.5),
        ("CNN/DM", "float32"): (1.8, 1.5, 0.7),
        ("CNN/DM", "bfloat16"): (9.0, 1.5, 0.5),
    }
    for lengths in LENGTHS:
        for threads in (1, 2):
            found = goals.comparisons(lengths, threads, ways=True)
            for precision in goals.PRECISIONS:
                mine = [one for one in found if one.ours.precision == precision and one.goal is not None]
                assert tuple(one.goal for one in mine) == asked[lengths, precision]
                assert all(one.peer.threads == one.ours.threads == threads for one in mine)
                assert [one.peer.precision for one in mine] == ["float32", precision, precision]


def test_a_row_compares_medians_and_a_missed_goal_is_named() -> None:
    comparison = goals.Comparison("name", Engine("a", "b", "c"), Engine("d", "e", "f"), 2.0)
    row = goals.row(comparison, [1.0, 30.0, 40.0], [10.0])
    assert row == {"name": "name", "ours": 30.0, "peer": 10.0, "ratio": 3.0, "goal": 2.0}
    assert missed([row]) == []
    assert missed([{**row, "ratio": 1.99}]) != []
    assert missed([{**row, "ratio": 1.99, "goal": None}]) == []


def test_examples_are_those_of_the_distribution_and_fit() -> None:
    for lengths in LENGTHS.values():
        drawn = np.array(lengths.drawn())
        assert lengths.drawn() == lengths.drawn()
        assert drawn.min() >= 1
        assert (drawn[:, 0] + 2).max() <= lengths.max_source
        assert (drawn[:, 1] + 1).max() <= lengths.max_target
    articles = np.array(LENGTHS["CNN/DM"].drawn())[:, 0]
    assert 0.6 < (articles == 462).mean() < 0.85  # 600 +- 200: 75 % are longer than 462


def test_the_twin_has_the_loss_of_s2s_ft_averaged() -> None:
    random = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 3, twin.VOCABULARY, generator=random)
    targets = torch.tensor([[5, 7, PAD], [9, PAD, PAD]])
    expected = smoothed_loss(logits.flatten(0, 1), targets.flatten(), smoothing=twin.SMOOTHING, pad=PAD).sum() / 3
    torch.testing.assert_close(twin.loss(logits, targets), expected, rtol=1e-4, atol=1e-4)


def test_the_twin_sees_what_the_rule_shows() -> None:
    """Reading is compared with our own row of the same example, slot by slot."""
    limits = LENGTHS["E2E"]._replace(max_source=6, max_target=4)
    (_, _, _, mask), targets = twin.padded([([1001, 1002], [1003, 1004])], limits)
    visible: Tensor = mask[0, 0] == 0
    source, target, pseudo = slice(0, 4), slice(6, 9), slice(10, 13)
    assert targets.tolist() == [[1003, 1004, twin.SEPARATOR, PAD]]
    assert visible[:, source].all()
    assert not visible[:, 4:6].any()
    assert visible[target, target].tolist() == [[True, False, False], [True, True, False], [True, True, True]]
    assert visible[pseudo, target].tolist() == [[False, False, False], [True, False, False], [True, True, False]]
    assert visible[pseudo, pseudo].tolist() == torch.eye(3).bool().tolist()
    assert not visible[target, pseudo].any()


def test_padding_to_the_maximum_adds_padding_alone() -> None:
    lengths = LENGTHS["E2E"]
    pool, *_ = ours._pool(lengths)
    frame = ours.Frame(pad=PAD, start=101, separator=102, mask=103, vocabulary=30522, max_source=128, max_target=96)
    chosen = np.array([3, 1])
    plain = ours.Feed(pool, ours.build("pseudo"), frame, lambda epoch: [chosen], 1)
    short = plain.batch(0, chosen)
    long = ours.FullLength(**vars(plain), length=320).batch(0, chosen)
    width = short.ids.shape[1]
    assert long.ids.shape == (2, 320)
    assert torch.equal(long.ids[:, :width], short.ids)
    assert long.tokens == short.tokens
    assert torch.equal(long.slots.time[:, :width], short.slots.time)
    read = [batch.ids.flatten()[batch.labels["lm"].slots] for batch in (short, long)]
    assert torch.equal(*read)


def test_the_operations_of_a_pass_are_those_that_torch_counts() -> None:
    encoder, feed = tiny_encoder().eval(), feed_of()
    batch = feed.batch(0, feed.order(0)[0])
    wanted = batch.labels[LANGUAGE_MODEL].slots
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        hidden, _ = encoder(batch.ids, batch.positions, batch.segments, batch.slots)
        encoder.logits(hidden.flatten(0, 1)[wanted])
    rows, tokens = batch.ids.shape
    found = gpu.operations(encoder.config, rows=rows, tokens=tokens, labels=len(wanted))
    assert found == counter.get_total_flops()
