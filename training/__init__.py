"""Trains and samples the MotionCharacter model on the manifests."""
