"""`unilmctl pretrain`: a mix of objectives on raw text, from a checkpoint or from nothing.

`mixing` makes rows of passages, `starting` the model with the heads that the mix needs, `validation` measures each
objective; the run itself is the room `fitting`.
"""

from unilmctl.commands.pretrain.command import replay, run

__all__ = ["replay", "run"]
