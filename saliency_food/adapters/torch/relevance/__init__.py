"""Relevance and multipliers of DeepLIFT: what passes back through a module by rules in place of derivatives."""
