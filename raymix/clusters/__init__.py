"""From a laptop to a cluster: cluster files rendered, checked offline, and submitted; what machines cost."""
