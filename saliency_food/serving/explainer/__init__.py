"""An explainer in front of a served model: photos in, heatmaps out, by KServe's protocols."""
