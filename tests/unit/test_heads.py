"""Heads beside the language model's: what they read and what they give."""

import pytest
import torch
from tiny_training import tiny_encoder

from unilmctl.errors import ModelError
from unilmctl.model import Encoder, HeadConfig


def with_heads(*heads: HeadConfig) -> Encoder:
    encoder = Encoder(tiny_encoder().config.with_heads(*heads))
    encoder.initialize(torch.Generator().manual_seed(3))
    return encoder.eval()


def test_a_class_head_reads_the_pooled_state():
    encoder = with_heads(HeadConfig("topic", "class", classes=3))
    hidden = torch.randn(4, 16)
    dense = encoder.extra["topic"].dense
    expected = torch.tanh(hidden @ encoder.pooler.weight.T + encoder.pooler.bias) @ dense.weight.T + dense.bias
    torch.testing.assert_close(encoder.scores("topic", hidden), expected)


def test_next_sentence_is_berts_own_pair_head():
    encoder = with_heads(HeadConfig("next-sentence", "class"))
    hidden = torch.randn(4, 16)
    pooled = torch.tanh(encoder.pooler(hidden))
    assert len(encoder.extra) == 0
    torch.testing.assert_close(encoder.scores("next-sentence", hidden), encoder.pair(pooled))


def test_a_tagging_head_reads_the_slot():
    encoder = with_heads(HeadConfig("tag", "token", classes=5))
    assert encoder.pooler is None
    assert encoder.scores("tag", torch.randn(4, 16)).shape == (4, 5)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: HeadConfig("lm", "class"), "a head cannot be called 'lm'"),
        (lambda: HeadConfig("a.b", "class"), "a head cannot be called 'a.b'"),
        (lambda: HeadConfig("x", "class", 3, ("a", "b")), "head 'x' has 3 classes and 2 names for them"),
        (lambda: HeadConfig("x", "oracle"), "head 'x' is of no known kind"),
        (lambda: with_heads(HeadConfig("x", "class"), HeadConfig("x", "token")), "two heads of one name: x, x"),
    ],
)
def test_heads_that_cannot_be_are_refused(made, message):
    with pytest.raises(ModelError) as caught:
        made()
    assert caught.value.message == message
