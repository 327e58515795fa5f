"""The one place where time and chance come in; everything else is given them."""

from __future__ import annotations

import os
import time
from typing import Final

from protocol.sealing import Random

random: Final[Random] = os.urandom


def clock() -> int:
    """Whole seconds since 1970 UTC."""
    return int(time.time())
