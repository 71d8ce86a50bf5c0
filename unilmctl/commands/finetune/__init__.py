"""`unilmctl finetune`: train a recipe's model on pairs of text, and go on where a run stopped.

`starting` makes the model that training starts from, `ingredients` says what the recipe means for rows and batches,
`validation` measures, `teaching` finds the teacher; the run itself is the room `fitting`.
"""

from unilmctl.commands.finetune.command import replay, run

__all__ = ["replay", "run"]
