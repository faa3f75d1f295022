"""Two runs held against each other."""

from safevid_core.evaluation.comparison.runs import Run, RunComparison, compare_runs
from safevid_core.evaluation.comparison.texts import as_json, as_markdown

__all__ = ["Run", "RunComparison", "as_json", "as_markdown", "compare_runs"]
