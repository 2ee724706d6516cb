"""What it costs: `make bench` or `python -m bench`; figures of record are in docs/benchmarks.md."""
