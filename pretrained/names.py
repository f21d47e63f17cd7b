"""The models that this package can build. A module of its own, so that asking for a name loads no torch."""

PRETRAINED = ("imagenet",)
