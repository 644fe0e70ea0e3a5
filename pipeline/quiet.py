"""Importing libraries that talk."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def imports() -> Iterator[None]:
    """Silence what Great Expectations, TFDV and Beam write while they are imported; errors still come through.

    They log some 300 lines about their own registries, warn of the age of Python and miss IPython: nothing that a
    user can act upon, and it buries the one line that a failing stage ends with.
    """
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)
