"""Two runs held against each other."""

from safevid_core.reporting.comparison.runs import LakeRun, RunComparison, compare_runs
from safevid_core.reporting.comparison.texts import as_json, as_markdown

__all__ = ["LakeRun", "RunComparison", "as_json", "as_markdown", "compare_runs"]
