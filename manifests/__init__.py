"""Parquet manifests: what their columns mean, and reading and writing their shards. Imports no other package of ours."""
