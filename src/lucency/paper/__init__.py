"""`lucency reproduce paper`: the published experiment, its pitfalls, and what is left of it."""

from lucency.paper.protocol import in_settings
from lucency.paper.run import reproduce

__all__ = ["in_settings", "reproduce"]
