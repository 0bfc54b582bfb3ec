"""One file a task: records, fields, metrics, predictions."""
