"""Estimates with intervals, from values that come in clusters. numpy only; knows no model and no store."""
