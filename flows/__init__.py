"""Optical flow and motion intensity: pure functions on arrays. Imports no other package of ours."""
