"""The paper's evaluation: what to generate, scores, tables, baselines, and the user study."""
