"""Side-by-side measurements of pretune and stock transformers; ``python -m benchmarks`` lists them."""
