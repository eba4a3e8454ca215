"""`python -m benchmarks [NAME…] [--quick]`: figures measured in one run, each beside the limit it must keep."""
