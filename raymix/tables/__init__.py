"""From a table of runs alone: which law, LAW.json, its predictions and its optimum."""
