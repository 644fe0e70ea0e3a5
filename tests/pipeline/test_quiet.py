from __future__ import annotations

import logging
import sys
import warnings

import pytest

from pipeline import quiet


def test_chatter_is_silenced_and_comes_back(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with quiet.imports():
        logging.getLogger("library").warning("optional package not found")
        warnings.warn("this Python is old", FutureWarning, stacklevel=1)
        print("visualisation will not function", file=sys.stderr)

    assert caplog.records == []
    assert capsys.readouterr().err == ""
    logging.getLogger("library").warning("heard again")
    assert caplog.messages == ["heard again"]


def test_an_import_that_fails_still_fails() -> None:
    with pytest.raises(ModuleNotFoundError), quiet.imports():
        import a_library_that_is_not_there  # noqa: F401

    assert logging.root.manager.disable == logging.NOTSET
