"""`unilmctl finetune`: train a recipe's model on pairs of text, and go on where a run stopped.

`starting` makes the model that training starts from, `validation` measures it, `fitting` drives the training loop and
writes the run folder; this file puts them together.
"""

from unilmctl.commands.finetune.command import FinetuneReport, run

__all__ = ["FinetuneReport", "run"]
