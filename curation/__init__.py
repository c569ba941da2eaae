"""The command line and the orchestration: configuration, sources, execution on Ray, verdicts, resampling."""
