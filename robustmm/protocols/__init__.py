"""Evaluation protocols: what is done to the test part, and what is said of the scores. One protocol a file."""
