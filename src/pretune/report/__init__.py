"""What people look at: pages, charts, the model card, their words, and what curves say."""
