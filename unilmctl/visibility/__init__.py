"""Who sees whom: the rule, and pictures of it."""

from unilmctl.visibility.picture import Picture, draw_png, draw_svg, draw_text
from unilmctl.visibility.rule import FOREVER, PADDING, Slots, mask_mod, readable_after, stack, visible

__all__ = [
    "FOREVER",
    "PADDING",
    "Picture",
    "Slots",
    "draw_png",
    "draw_svg",
    "draw_text",
    "mask_mod",
    "readable_after",
    "stack",
    "visible",
]
