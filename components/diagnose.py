"""Stage `diagnose`: rank the causes of what is weak, with evidence and a change of params."""

from __future__ import annotations

import logging
from pathlib import Path

from pipeline import files, stage
from pipeline.diagnosis import diagnosing, facts
from pipeline.settings import load

logger = logging.getLogger(__name__)


def main() -> None:
    settings = load(Path("params.yaml"))
    causes = diagnosing.diagnose(facts.read(Path.cwd(), settings))
    files.write_json(Path("reports/diagnosis.json"), diagnosing.as_json(causes))
    worst = f"first {causes[0].cause} (score {causes[0].score:.2f})" if causes else "nothing found"
    logger.info("diagnose: %d causes, %s", len(causes), worst)


if __name__ == "__main__":
    stage.run(main)
