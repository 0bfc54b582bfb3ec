"""What is done to text before a model sees it: repair, rules, redaction, duplicates, decontamination."""
