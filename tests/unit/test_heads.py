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


def test_a_regression_head_gives_one_number():
    encoder = with_heads(HeadConfig("grade", "regression", 1))
    hidden = torch.randn(4, 16)
    expected = encoder.extra["grade"].dense(torch.tanh(encoder.pooler(hidden)))[:, 0]
    assert torch.equal(encoder.scores("grade", hidden), expected)


def test_an_answer_head_says_beginning_and_end():
    assert with_heads(HeadConfig("answer", "span")).scores("answer", torch.randn(4, 16)).shape == (4, 2)


def test_a_contrastive_head_is_the_pooler_alone_and_gives_unit_vectors():
    encoder = with_heads(HeadConfig("alike", "contrastive"))
    hidden = torch.randn(4, 16)
    pooled = encoder.pooler(hidden)
    assert len(encoder.extra) == 0
    torch.testing.assert_close(encoder.scores("alike", hidden), pooled / pooled.norm(dim=1, keepdim=True))


def test_a_boundary_head_reads_both_sides_and_the_place():
    encoder = with_heads(HeadConfig("boundary", "boundary"))
    left, right = torch.randn(2, 3, 16)
    offset = torch.tensor([0, 5, 19])
    given = encoder.scores("boundary", left, right, offset)
    head = encoder.extra["boundary"]
    hidden = torch.cat((left, right, head.position.weight[offset]), 1)
    for linear, norm in ((head.inner, head.inner_norm), (head.outer, head.outer_norm)):
        hidden = norm(torch.nn.functional.gelu(linear(hidden)))
    torch.testing.assert_close(given, hidden @ encoder.embeddings.word.weight.T + head.bias)
    far = encoder.scores("boundary", left, right, torch.tensor([0, 5, 400]))
    torch.testing.assert_close(far, given)
