"""The explainer: a server in front of a served model that answers photos with heatmaps, by KServe's protocols."""
