"""Kept clips in the forms that others read."""
