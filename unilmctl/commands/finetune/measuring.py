"""What is measured during training of tasks that end in a label, and of several tasks at once."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from unilmctl import metrics
from unilmctl.commands.finetune.lessons import mixed_feed
from unilmctl.commands.finetune.validation import SHOWN
from unilmctl.data.labelled import LabelledText, plain_of
from unilmctl.data.store import Store
from unilmctl.fitting import Measures, train_options
from unilmctl.generation import Labeller, Opened
from unilmctl.model import Encoder
from unilmctl.preparation import labelled_texts
from unilmctl.recipe import Lesson, Recipe
from unilmctl.rows import Frame
from unilmctl.tokens import Tokenizer
from unilmctl.training import Feed, TrainOptions, evaluate_loss
from unilmctl.weights import ModelCard

MEASURED = {
    "classify": ("accuracy", "macro_f1"),
    "regress": ("pearson", "spearman"),
    "tag": ("tag_f1", "tag_accuracy"),
    "span": ("squad_em", "squad_f1"),
}
"""What is measured unless the recipe says it."""


@dataclass(frozen=True)
class LabelValidation:
    """What is measured on a validation split: the loss of `feed`, and the scores of what is said of `texts`."""

    feed: Feed[Any]
    options: TrainOptions
    say: Callable[[Encoder, Sequence[LabelledText]], list[str]]
    texts: Sequence[LabelledText]
    task: str
    names: Sequence[str]
    scoring: metrics.Options

    def measure(self, encoder: Encoder, stop: Callable[[], bool]) -> dict[str, Any] | None:
        """`loss` per label, every score by name, and `examples`; None when `stop` said yes."""
        loss = evaluate_loss(encoder, self.feed, self.options, stop=stop)
        if loss is None or stop():
            return None
        said = self.say(encoder, self.texts)
        truths: list[list[str | None]] = [list(text.truths(self.task)) for text in self.texts]
        scores = metrics.evaluate(said, truths, names=self.names, options=self.scoring)
        examples = [
            {"source": plain_of(text.source), "output": one, "reference": true[0]}
            for text, one, true in zip(self.texts[:SHOWN], said, truths, strict=False)
        ]
        return {"loss": loss, **scores, "examples": examples}


@dataclass(frozen=True)
class SeveralMeasures:
    """What is measured of several tasks; what belongs to the one called `first` needs no name before it."""

    tasks: Mapping[str, Measures]
    first: str

    def measure(self, encoder: Encoder, stop: Callable[[], bool]) -> dict[str, Any] | None:
        """The figures of every task, those of the others as `NAME.FIGURE`; None when `stop` said yes."""
        whole: dict[str, Any] = {}
        for name, task in self.tasks.items():
            found = task.measure(encoder, stop)
            if found is None:
                return None
            examples = whole.pop("examples", []) + found.pop("examples", [])
            found.pop("parts", None) if name != self.first else None
            whole |= found if name == self.first else {f"{name}.{key}": value for key, value in found.items()}
            whole["examples"] = examples
        return whole


def label_validation_of(
    plan: Recipe,
    lesson: Lesson,
    store: Store,
    labels: tuple[str, ...],
    frame: Frame,
    card: ModelCard,
    tokenizer: Tokenizer,
) -> LabelValidation:
    """What is measured of a task that ends in a label."""
    section = plan.finetune
    texts = list(
        labelled_texts(lesson.splits["valid"], task=lesson.task, labels=labels, on_bad_line=plan.data.on_bad_line)
    )
    count = min(section.evaluate_examples or len(texts), len(texts))
    clean = plan.model_copy(update={"finetune": section.model_copy(update={"source_mask": 0.0})})
    own = lesson.where == "data" and "metrics" in plan.evaluate.model_fields_set
    wanted = [*(plan.evaluate.metrics if own else MEASURED[lesson.task])]
    if lesson.where == "data" and section.keep_best_by != "loss":
        wanted.append(section.keep_best_by)
    scoring = plan.evaluate
    return LabelValidation(
        feed=mixed_feed(clean, [lesson._replace(weight=1.0)], {lesson.name: store}, frame),
        options=train_options(section, plan.seed),
        say=partial(_said, card=card, tokenizer=tokenizer, name=lesson.name, batch_tokens=section.batch_tokens),
        texts=[texts[index * len(texts) // count] for index in range(count)],
        task=lesson.task,
        names=metrics.expand(wanted),
        scoring=metrics.Options(language=scoring.language, lowercase=scoring.lowercase, tokenize=scoring.tokenize),
    )


def _said(
    encoder: Encoder,
    texts: Sequence[LabelledText],
    *,
    card: ModelCard,
    tokenizer: Tokenizer,
    name: str,
    batch_tokens: int,
) -> list[str]:
    training = encoder.training
    said = Labeller(Opened(encoder, card, tokenizer), name, batch_tokens=batch_tokens).say(
        [(text.source, text.second) for text in texts]
    )
    encoder.train(training)
    return [one.text for one in said]
