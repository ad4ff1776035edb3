"""Other packages' interfaces on top of titer, so that existing scripts run with one changed import."""
