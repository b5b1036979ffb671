"""The top-level packages that Headwater is made of."""

ROOMS = ("orchestration", "assets", "training", "quality", "retrieval", "inference", "common")
