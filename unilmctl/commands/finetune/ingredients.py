"""What a recipe's sections mean in the terms of training: options, rows, batches, validation."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from unilmctl import metrics, preparation
from unilmctl.commands.finetune.validation import SHOWN, Validation
from unilmctl.data.batching import batches, packed_batches
from unilmctl.data.store import Store
from unilmctl.fitting.options import custom_row, train_options
from unilmctl.generation import GenerateOptions, Generator
from unilmctl.model import Encoder
from unilmctl.model.adapters import Adapting
from unilmctl.objectives import Corruption, Objective, build, row_length
from unilmctl.recipe import Recipe, Split
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


def corruption_of(plan: Recipe) -> Corruption:
    """What this recipe does to the tokens of its rows."""
    section = plan.finetune
    return Corruption(target=section.target_mask, random=section.random, keep=section.keep, source=section.source_mask)


def rows_of(plan: Recipe, name: str | None = None) -> tuple[Objective, Callable[[Ints, Ints, Frame], Ints]]:
    """What makes the rows of pairs, and how long those are: of the objective `name`, or as the recipe says."""
    section, corruption = plan.finetune, corruption_of(plan)
    if name is None and section.row is not None:
        row = custom_row(plan, section.row, corruption)
        return row, row.lengths
    name = name or section.objective
    return build(name, corruption), partial(row_length, name)


def feed_of(plan: Recipe, store: Store, frame: Frame, objective: str | None = None) -> Feed[Example]:
    """The examples of a store in this recipe's batches; rows of `objective`, or of the recipe's."""
    section, (row, lengths) = plan.finetune, rows_of(plan, objective)
    sources, targets = store.lengths("source"), store.lengths("target")

    def order(epoch: int) -> list[Ints]:
        return (packed_batches if section.pack else batches)(
            sources,
            targets,
            row_length=lambda source, target: lengths(source, target, frame),
            batch_tokens=section.batch_tokens,
            seed=plan.seed,
            epoch=epoch,
        )

    return Feed(store, row, frame, order, plan.seed, section.pack or 0)


def validation_of(
    plan: Recipe,
    split: Split | None,
    store: Store | None,
    frame: Frame,
    card: ModelCard,
    tokenizer: Tokenizer,
    objective: str | None = None,
) -> Validation | None:
    """What is measured of a split of pairs during training; None where there is none."""
    if split is None or store is None:
        return None
    section = plan.finetune
    pairs = list(preparation.evaluation_pairs(split, tokenizer, on_bad_line=plan.data.on_bad_line))
    count = min(section.evaluate_examples or len(pairs), len(pairs))
    chosen = [index * len(pairs) // count for index in range(count)]
    wanted = [*plan.evaluate.metrics, *([] if section.keep_best_by == "loss" else [section.keep_best_by])]
    scoring = plan.evaluate
    return Validation(
        feed=feed_of(plan, store, frame, objective),
        options=replace(train_options(section, plan.seed), head_weights=section.head_weights),
        decode=decoder_of(plan, card, tokenizer),
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
