"""A model on a task's data: scores, intervals, baselines, error analysis."""
