"""One file a measurement. A stage only measures; thresholds become verdicts elsewhere."""
