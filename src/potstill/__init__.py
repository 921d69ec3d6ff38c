"""potstill distils a large model into a small one and says, with evidence, whether it is good enough."""

__version__ = "0.1.0"
