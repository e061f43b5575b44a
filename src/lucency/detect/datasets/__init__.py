"""Was this training set poisoned, and by which images? One file a test."""
