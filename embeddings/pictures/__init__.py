"""Bytes to pictures: decoding, what of an image is seen, and the facts that are recorded of it."""
