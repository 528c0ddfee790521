"""Verification: same class or not, by a threshold on the distance."""
