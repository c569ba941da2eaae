"""Scores of generated videos: one file a metric, its network beside it where no maintained library has one."""
