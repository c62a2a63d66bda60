"""Builds the image `cumulet-tiny` into the user's cache, where it is not there yet; says why where it cannot."""

from __future__ import annotations

from cumulet.image.tiny import CannotBuild, build

try:
    build(lambda step: print(f"setup: tiny image: {step}"))
except CannotBuild as error:
    print(f"setup: the tiny image cannot be built here ({error}); clouds start without it")
