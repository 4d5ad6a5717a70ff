"""Images to vectors, and what one can say of vectors.

store = embeddings.embed("inspection/", encoder="lite0", out="stores/inspection")
store.vectors()  # [n, d]
"""
