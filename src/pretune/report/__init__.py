"""Pages and cards that show a run to people: report.html, the model card."""
