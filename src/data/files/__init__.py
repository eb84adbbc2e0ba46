"""Reads and writes files of rows: csv, tsv, json, jsonl, parquet, arrow, xlsx. Cells are text, exactly as written."""
