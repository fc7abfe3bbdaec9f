"""A study's trials on Ray: one Tune trial per proxy, on a laptop or a cluster that grows and shrinks."""
