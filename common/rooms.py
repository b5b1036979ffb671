"""The top-level packages that Headwater is made of."""

ROOMS = ("orchestration", "assets", "training", "quality", "retrieval", "inference", "common")
STANDALONE = ("manpage_text",)
"""Packages below `packages/` that import no room; Headwater's distribution contains them."""
