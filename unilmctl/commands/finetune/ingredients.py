"""What a recipe's sections mean in the terms of training: options, rows, batches, validation."""

from collections.abc import Callable

from unilmctl import metrics, preparation
from unilmctl.commands.finetune.validation import SHOWN, Validation
from unilmctl.data.batching import batches, packed_batches
from unilmctl.data.store import Store
from unilmctl.fitting import train_options
from unilmctl.generation import GenerateOptions, Generator
from unilmctl.model import Encoder
from unilmctl.model.adapters import Adapting
from unilmctl.objectives import Corruption, build, row_length
from unilmctl.preparation import Prepared
from unilmctl.recipe import Recipe
from unilmctl.rows import Example, Frame, Ints
from unilmctl.tokens import Tokenizer
from unilmctl.training import Feed
from unilmctl.weights import ModelCard


def adapting_of(plan: Recipe) -> Adapting | None:
    """The adapters that the recipe asks for, on the model it starts from."""
    wanted = plan.finetune.lora
    if wanted is None:
        return None
    base = None if plan.model.init is None else str(plan.model.init)
    return Adapting(wanted.rank, wanted.alpha, wanted.dropout, tuple(wanted.targets), base)


def frame_of(plan: Recipe, tokenizer: Tokenizer, card: ModelCard) -> Frame:
    """The special tokens, segments and limits of this recipe's rows."""
    roles = tokenizer.roles
    return Frame(
        pad=roles.pad,
        start=roles.start,
        separator=roles.separator,
        mask=roles.mask,
        vocabulary=tokenizer.size,
        source_segment=card.source_segment,
        target_segment=card.target_segment,
        max_source=plan.tokens.max_source,
        max_target=plan.tokens.max_target,
        separator_in=card.separator_in,
        truncate=card.truncate,
    )


def feed_of(plan: Recipe, store: Store, frame: Frame) -> Feed[Example]:
    """The examples of a store in this recipe's batches."""
    section = plan.finetune
    corruption = Corruption(
        target=section.target_mask, random=section.random, keep=section.keep, source=section.source_mask
    )
    sources, targets = store.lengths("source"), store.lengths("target")

    def lengths(source: Ints, target: Ints) -> Ints:
        return row_length(section.objective, source, target, frame)

    def order(epoch: int) -> list[Ints]:
        return (packed_batches if section.pack else batches)(
            sources, targets, row_length=lengths, batch_tokens=section.batch_tokens, seed=plan.seed, epoch=epoch
        )

    return Feed(store, build(section.objective, corruption), frame, order, plan.seed, section.pack or 0)


def validation_of(plan: Recipe, prepared: Prepared, frame: Frame, card: ModelCard) -> Validation | None:
    """What is measured during training; None for a recipe without a validation split."""
    split, section = plan.data.valid, plan.finetune
    if split is None:
        return None
    pairs = list(preparation.evaluation_pairs(split, prepared.tokenizer, on_bad_line=plan.data.on_bad_line))
    count = min(section.evaluate_examples or len(pairs), len(pairs))
    chosen = [index * len(pairs) // count for index in range(count)]
    store = prepared.stores["valid"]
    wanted = [*plan.evaluate.metrics, *([] if section.keep_best_by == "loss" else [section.keep_best_by])]
    scoring = plan.evaluate
    return Validation(
        feed=feed_of(plan, store, frame),
        options=train_options(plan.finetune, plan.seed),
        decode=decoder_of(plan, card, prepared.tokenizer),
        sources=[store[index].source.tolist() for index in chosen],
        references=[list(pairs[index].references) for index in chosen],
        names=metrics.expand(wanted),
        scoring=metrics.Options(language=scoring.language, lowercase=scoring.lowercase, tokenize=scoring.tokenize),
        shown=[pairs[index].source for index in chosen[:SHOWN]],
    )


def decoder_of(
    plan: Recipe, card: ModelCard, tokenizer: Tokenizer
) -> Callable[[Encoder, list[list[int]], Callable[[], bool]], list[str] | None]:
    """The recipe's decoding, in float32 as the weights are: sources to texts, None when asked to stop."""
    options = GenerateOptions().updated({**plan.resolved()["generate"], "dtype": "float32", "attention": False})

    def decode(encoder: Encoder, sources: list[list[int]], stop: Callable[[], bool]) -> list[str] | None:
        texts = [""] * len(sources)
        for batch in Generator(encoder, card, tokenizer, options).batches(sources):
            for place, hypotheses in batch:
                texts[place] = tokenizer.decode(hypotheses[0].ids) if hypotheses else ""
            if stop():
                return None
        return texts

    return decode
