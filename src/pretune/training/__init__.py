"""The one trainer, with its optimisers, schedules, budgets and monitors."""
