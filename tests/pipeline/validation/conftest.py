"""Great Expectations warns of its own affairs when it is imported, and warnings are errors here."""

from pipeline import runtime

with runtime.quiet_imports():
    import great_expectations  # noqa: F401
