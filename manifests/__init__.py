"""Parquet manifests: what their columns mean, and reading and writing shards. Imports no other package of ours."""
