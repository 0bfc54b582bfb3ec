"""What a model must beat, made without a model: n-grams, the majority label, TF-IDF."""
