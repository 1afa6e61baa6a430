"""Videos made on this machine to train and judge video models on: a simulated scene, a flow, sprites."""
