"""The safety gate, always on: what stands between an answer and the robot."""
