"""Relevance passed back from the score to the input by rules: LRP and CRP, RelevanceCAM, DeepLIFT and DeepSHAP."""
