"""From held-out items to a scorecard: benchmarks, answers, verdicts, statistics, the report."""
