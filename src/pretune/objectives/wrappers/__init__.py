"""Objectives made of others: several together, a mixture, distillation, a schedule."""
