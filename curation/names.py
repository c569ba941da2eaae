"""Names of the files in an output folder that are not Parquet."""

LOCK = "measurements/.lock"
CONFIG = "config.yaml"
ENGINES = "measurements/engines.json"
SUMMARY = "summary.json"
REPORT = "report.html"
