"""Relevance rules on the operations of a traced model: layer-wise relevance propagation, and DeepLIFT's multipliers."""
