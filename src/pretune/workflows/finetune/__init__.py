"""``pretune finetune``."""
