"""Random streams that depend on nothing but their key.

Each record, each rule and each sentence draws from a stream of its own, so that what one draws never shifts another.
Python seeds its Mersenne Twister from the SHA-512 of a text in the same way on every platform and version.
"""

from __future__ import annotations

from random import Random


def stream(*key: object) -> Random:
    """Return the random stream of a key, for example ``stream("rules", 1, "drugs")``."""
    return Random("/".join(map(str, key)))
