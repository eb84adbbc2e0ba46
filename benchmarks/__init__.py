"""Measurements that README's figures come from. Each writes records; `python -m benchmarks.pages` draws them."""
