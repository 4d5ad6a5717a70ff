"""Two or more random views of a batch of images, every image with its own draws, as tensor operations on the batch.

``draws`` decides (numpy, a counter-based generator), ``geometry`` and ``color`` do, ``views`` puts them in order.
"""
